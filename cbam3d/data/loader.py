"""Load batches onto the device, identical for any number of workers and processes."""

import time
from collections.abc import Callable, Generator, Iterator, Sized
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from cbam3d.data.augment import BatchTransform, Mix
from cbam3d.data.background import is_background
from cbam3d.data.batch import AGAIN, Packed, SampleIndex
from cbam3d.data.workers import Worker, loader_processes
from cbam3d.errors import InputError


class Samples(Sized, Protocol):
    """A data set that reads the samples of a batch of indices.

    `labels` has the class number of every item, or whether it has each class, bool (N, K).
    """

    labels: Any

    def __getitems__(self, indices: list[SampleIndex]) -> Packed: ...

    def name(self, index: int) -> str:
        """The name of an item: its path."""
        ...

    def stamp(self, index: int) -> str:
        """What tells an item from another, and from itself after a change."""
        ...

    def by_name(self) -> "Samples":
        """The same items, with randomness that follows from their names alone."""
        ...


@dataclass(frozen=True)
class Batch:
    """A network's input. `inputs` holds the V views of a sample consecutively."""

    inputs: Tensor  # float32 (N·V, C, *S)
    labels: Tensor  # int64 (N,), or of items that may have several, bool (N, K)
    targets: Tensor  # of the loss, one per view: int64 (N·V,), or class weights, float32 (N·V, K)
    names: list[str]  # of the samples
    problems: list[tuple[str, str]]  # path and reason of the samples that could not be read


class TrainBatches(Sampler[list[SampleIndex]]):
    """All samples in random order each epoch, split into global batches of which this process takes its share.

    The last, incomplete batch of an epoch is dropped, unless it is the only one: BatchNorm would be noisy on it.
    `limit` is the maximum number of batches per epoch. Iteration starts at batch `start`. With `weights`, one for each
    sample (see `balanced`), an epoch has as many samples, each as often as its weight, rounded up or down at random.
    """

    def __init__(
        self,
        data: Sized,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        limit: int | None = None,
        weights: np.ndarray | None = None,
    ) -> None:
        self.num_samples, self.batch_size, self.seed = len(data), min(batch_size, len(data)), seed
        self.rank, self.world_size, self.limit, self.weights = rank, world_size, limit, weights
        self.epoch = self.start = 0

    def __len__(self) -> int:
        """Batches in a full epoch."""
        batches = self.num_samples // self.batch_size
        return batches if self.limit is None else min(self.limit, batches)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        rng = np.random.default_rng([self.seed, self.epoch])
        order = rng.permutation(self.num_samples)
        if self.weights is not None:  # class by class, at equal distances along the weights, from a random place on
            order = order[np.argsort(self.weights[order], kind="stable")]
            ends = np.cumsum(self.weights[order])
            places = (np.arange(self.num_samples) + rng.random()) * (ends[-1] / self.num_samples)
            order = rng.permutation(order[np.searchsorted(ends, places, side="right").clip(0, self.num_samples - 1)])
        epochs = self.epoch + AGAIN * _times_before(order)
        indices = [*map(SampleIndex, epochs.tolist(), order.tolist())]
        for batch in range(self.start, len(self)):
            yield indices[batch * self.batch_size + self.rank : (batch + 1) * self.batch_size : self.world_size]


def _times_before(numbers: np.ndarray) -> np.ndarray:
    """How often each number has come before, int (N,)."""
    order = np.argsort(numbers, kind="stable")
    _, first, counts = np.unique(numbers[order], return_index=True, return_counts=True)
    times = np.empty(len(numbers), np.int64)
    times[order] = np.arange(len(numbers)) - np.repeat(first, counts)
    return times


def visits(labels: Any, balance: float, background: float, classes: list[str]) -> np.ndarray | None:
    """How often an epoch visits each sample, on average; None for once each.

    Args:
        labels: class numbers, int (N,), or whether samples have each class, bool (N, K).
        balance: see `balanced`.
        background: share of the samples that show nothing; 0 for no share of their own.
        classes: names.
    """
    labels = np.asarray(labels)
    if not background:
        return balanced(labels, balance)
    nothing = is_background(labels, classes)
    if nothing.all() or not nothing.any():
        raise InputError("data.background: no training video shows anything between its parts, for long enough")
    weights = np.empty(len(labels))
    weights[nothing] = background * len(labels) / nothing.sum()
    shown = balanced(labels[~nothing], balance)
    weights[~nothing] = (1 if shown is None else shown) * (1 - background) * len(labels) / (~nothing).sum()
    return weights


def balanced(labels: Any, balance: float) -> np.ndarray | None:
    """How often an epoch visits each sample, on average, if its class, of n samples, is to have a share of
    n^(1 - balance); None for once each. Of several labels the rarest counts.

    Args:
        labels: class numbers, int (N,), or whether samples have each class, bool (N, K).
        balance: 0 … 1.
    """
    if not balance:
        return None
    labels = np.asarray(labels)
    if labels.ndim == 2:
        labels = np.column_stack([labels, ~labels.any(1)])  # no label is one more class
        sizes = np.where(labels, labels.sum(0), len(labels)).min(1)
    else:
        sizes = np.bincount(labels)[labels]
    weights = sizes.astype(float) ** -balance
    return weights * (len(labels) / weights.sum())


class EvalBatches(Sampler[list[SampleIndex]]):
    """Every sample exactly once across all processes."""

    def __init__(self, data: Sized, batch_size: int, rank: int = 0, world_size: int = 1) -> None:
        self.indices, self.batch_size = range(rank, len(data), world_size), batch_size
        self.epoch = self.start = 0

    def __len__(self) -> int:
        return -(-len(self.indices) // self.batch_size)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for i in range(self.start * self.batch_size, len(self.indices), self.batch_size):
            yield [SampleIndex(self.epoch, index) for index in self.indices[i : i + self.batch_size]]


class Loader:
    """Read in workers, move to the device, transform there.

    Args:
        data: the data set.
        batches: yields the indices of each batch.
        transform: packed samples on the device -> (N·V, C, *S).
        num_workers: reader processes; 0 reads in this process.
        device: of the batches.
        mix: mixes the samples of a batch, or None.
    """

    def __init__(
        self,
        data: Samples,
        batches: TrainBatches | EvalBatches,
        transform: BatchTransform,
        num_workers: int,
        device: torch.device,
        mix: Mix | None = None,
    ) -> None:
        self.data, self.batches, self.transform, self.device, self.mix = data, batches, transform, device, mix
        self.current: Callable[[], Any] = lambda: None  # of passes that must not mix, the one that has begun
        if device.type == "cuda":  # copies and transforms, while the step before still computes
            self.beside = torch.cuda.Stream(device)  # one: freed memory stays with its stream
        self.loader = DataLoader(
            data,  # type: ignore[arg-type]
            batch_sampler=batches,  # type: ignore[arg-type]  # a SampleIndex is the index
            num_workers=num_workers,
            collate_fn=_as_it_is,  # type: ignore[arg-type]  # a data set reads whole batches
            pin_memory=device.type == "cuda",
            persistent_workers=num_workers > 0,
            worker_init_fn=Worker(),
            multiprocessing_context=loader_processes() if num_workers else None,
        )

    def __len__(self) -> int:
        return len(self.batches)

    def close(self) -> None:
        """End the worker processes; the next pass starts others."""
        if (workers := self.loader._iterator) is not None and hasattr(workers, "_shutdown_workers"):
            workers._shutdown_workers()  # type: ignore[attr-defined]
        self.loader._iterator = None

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch (order and random parameters) and the first batch of the next pass."""
        self.batches.epoch, self.batches.start = epoch, start

    def __iter__(self) -> Generator[Batch, None, None]:
        if self.device.type != "cuda":
            yield from map(self._on_device, self._packed())
            return
        for packed in self._packed():
            now = torch.cuda.current_stream(self.device)
            if packed.data.is_cuda:  # gathered by that stream, from images in its memory
                self.beside.wait_stream(now)
            with torch.cuda.stream(self.beside):
                batch = self._on_device(packed)
            now.wait_stream(self.beside)
            for tensor in (batch.inputs, batch.labels, batch.targets):
                tensor.record_stream(now)
            yield batch

    def _on_device(self, packed: Packed) -> Batch:
        packed = packed.to(self.device)
        if not packed.indices:
            return Batch(torch.empty(0, device=self.device), packed.labels, packed.labels, [], packed.problems)
        inputs = self.transform(packed)
        targets = packed.labels if packed.labels.ndim == 1 else packed.labels.float()
        if len(inputs) > len(targets):  # several views of a sample
            targets = targets.repeat_interleave(len(inputs) // len(targets), 0, output_size=len(inputs))
        if self.mix is not None:
            inputs, targets = self.mix(packed.indices, inputs, targets)
        names = [self.data.name(index.item) for index in packed.indices]
        return Batch(inputs, packed.labels, targets, names, packed.problems)

    def _packed(self) -> Iterator[Packed]:
        try:
            yield from self.loader
        except GeneratorExit:  # an epoch that is left early: in a notebook, an exception would keep the workers alive
            self.close()
            raise
        except (ConnectionError, EOFError, FileNotFoundError) as error:
            # Its socket is gone before PyTorch hears of its end, from a signal whose handler raises in the main thread:
            # here, rather than wherever that thread is later (in __del__, where the error is printed, not raised).
            time.sleep(2)
            raise RuntimeError(f"DataLoader worker exited while it sent a batch ({error}).") from error


def _as_it_is(packed: Packed) -> Packed:
    return packed
