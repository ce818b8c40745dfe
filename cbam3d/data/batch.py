"""Samples of a data set, and how loader workers pack them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

AGAIN = 2**32  # more than there are epochs


class SampleIndex(NamedTuple):
    """One item of one epoch, as a sampler yields it. It and the seed determine all randomness.

    Where an epoch has an item several times, `epoch` is larger by `AGAIN` each further time: it is drawn anew.
    """

    epoch: int
    item: int


@dataclass(frozen=True)
class Sample:
    """One item: its views, each uint8 (C, *S), or no views and the problem: (path, reason)."""

    index: SampleIndex
    label: Any  # class number, or whether it has each class, bool (K,)
    views: list[Tensor]
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Packed:
    """Samples in one flat buffer, so that clips of different sizes travel as one tensor."""

    indices: list[SampleIndex]
    labels: Tensor  # of the samples: class numbers, int64 (N,), or whether they have each class, bool (N, K)
    data: Tensor  # uint8, flat
    shapes: list[tuple[int, ...]]  # of every view, grouped by sample
    problems: list[tuple[str, str]]

    def pin_memory(self) -> "Packed":
        if self.data.device.type != "cpu":
            return self
        return replace(self, labels=self.labels.pin_memory(), data=self.data.pin_memory())

    def to(self, device: torch.device) -> "Packed":
        return replace(
            self,
            labels=self.labels.to(device, non_blocking=True),
            data=self.data.to(device, non_blocking=True),
        )

    def views_of_one_shape(self) -> Iterator[Tensor]:
        """Yield all views in order, uint8 (N, C, *S), without copying: together if equal in shape, else one by one."""
        if len(set(self.shapes)) == 1:
            yield self.data.view(len(self.shapes), *self.shapes[0])
            return
        sizes = [math.prod(shape) for shape in self.shapes]
        for part, shape in zip(self.data.split(sizes), self.shapes, strict=True):
            yield part.view(1, *shape)


def pack(samples: list[Sample]) -> Packed:
    """Collate samples: usable ones go into the buffer, others only report their problem."""
    usable = [sample for sample in samples if sample.problem is None]
    views = [view for sample in usable for view in sample.views]
    return Packed(
        indices=[sample.index for sample in usable],
        labels=torch.from_numpy(np.array([sample.label for sample in usable])) if usable else torch.empty(0).long(),
        data=torch.cat([view.reshape(-1) for view in views]) if views else torch.empty(0, dtype=torch.uint8),
        shapes=[tuple(view.shape) for view in views],
        problems=[sample.problem for sample in samples if sample.problem is not None],
    )
