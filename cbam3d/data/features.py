"""Features of a data set in memory, in place of its videos: what a head is trained on when the rest does not change."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Sampler

from cbam3d.data.augment import Mix
from cbam3d.data.batch import SampleIndex
from cbam3d.data.loader import Batch, EvalBatches, TrainBatches
from cbam3d.data.rng import Purpose, keys_of, uniforms


class ViewBatches(Sampler[list[SampleIndex]]):
    """Batches of whole items, each with so many views one after the other: those of as many epochs."""

    def __init__(self, items: Sequence[int], num_views: int, batch_size: int) -> None:
        self.items, self.num_views = items, num_views
        self.per_batch = max(1, batch_size // num_views)

    def __len__(self) -> int:
        return -(-len(self.items) // self.per_batch)

    def __iter__(self) -> Iterator[list[SampleIndex]]:
        for i in range(0, len(self.items), self.per_batch):
            items = self.items[i : i + self.per_batch]
            yield [SampleIndex(view, item) for item in items for view in range(self.num_views)]


@dataclass(frozen=True)
class FeatureSet:
    """Features of a split's items.

    Args:
        features: (N, V, C, *S), of V views.
        labels: int64 (N,), or bool (N, K).
        names: of the items.
    """

    features: Tensor
    labels: Tensor
    names: list[str]

    def __len__(self) -> int:
        return len(self.names)


class FeatureLoader:
    """Batches of features. In training an item has one of its views in each epoch, in evaluation all of them.

    Args:
        data: the features.
        batches: yields the indices of each batch.
        device: of the batches.
        mix: mixes the samples of a batch, or None.
    """

    def __init__(
        self, data: FeatureSet, batches: TrainBatches | EvalBatches, device: torch.device, mix: Mix | None = None
    ) -> None:
        self.data, self.batches, self.device, self.mix = data, batches, device, mix

    def __len__(self) -> int:
        return len(self.batches)

    def set_epoch(self, epoch: int, start: int = 0) -> None:
        """Set the epoch (order and views) and the first batch of the next pass."""
        self.batches.epoch, self.batches.start = epoch, start

    def __iter__(self) -> Iterator[Batch]:
        for indices in self.batches:
            items = torch.tensor([index.item for index in indices])
            labels = self.data.labels[items].to(self.device)
            if isinstance(self.batches, TrainBatches):
                found = self.data.features[items, self._views(self.batches.seed, indices)].unsqueeze(1)
            else:
                found = self.data.features[items]
            inputs = found.flatten(0, 1).to(self.device).float()
            targets = (labels if labels.ndim == 1 else labels.float()).repeat_interleave(found.shape[1], 0)
            if self.mix is not None:
                inputs, targets = self.mix(indices, inputs, targets)
            yield Batch(inputs, labels, targets, [self.data.names[index.item] for index in indices], [])

    def _views(self, seed: int, indices: list[SampleIndex]) -> Tensor:
        """The view of each sample in its epoch, (N,)."""
        epochs, items = np.array(indices, np.int64).T
        shares = uniforms(keys_of(seed, epochs, items), 1, Purpose.VIEW)[:, 0]
        return torch.from_numpy((shares * self.data.features.shape[1]).astype(np.int64))
