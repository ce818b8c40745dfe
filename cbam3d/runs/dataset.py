"""A data set for a training loop of your own: items by index, batches by iteration."""

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from cbam3d.config import ConfigSource, load_config
from cbam3d.data.batch import SampleIndex
from cbam3d.data.loader import Batch, Loader
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError
from cbam3d.runs.data import open_source
from cbam3d.runs.loaders import create_loaders
from cbam3d.runs.progress import show_progress


class Split:
    """One split of a data set, sampled, cropped, transformed and normalised as the configuration says.

    `split[i]` is the pair of an item's input, float32 (C, T, H, W) or (C, H, W), and its label. Where evaluation takes
    V views of an item, the input is (V, C, *S). A training item is transformed as in the first epoch.

    Args:
        loader: of its batches.
        classes: names in the order of their numbers.
    """

    def __init__(self, loader: Loader, classes: list[str]) -> None:
        self.loader, self.classes = loader, classes

    def __len__(self) -> int:
        """Number of items."""
        return len(self.loader.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """
        Raises:
            IndexError: no such item.
            InputError: its file cannot be read.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        packed = self.loader.data.__getitems__([SampleIndex(0, index)])
        if packed.problems:
            raise InputError(": ".join(packed.problems[0]))
        views = self.loader.transform(packed.to(self.loader.device))
        return views[0] if len(views) == 1 else views, int(packed.labels[0])

    def name(self, index: int) -> str:
        """The path of an item below the root of the data."""
        return self.loader.data.name(index)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, on the device: `inputs` (N·V, C, *S), the V views of a sample one after the other,
        `targets` (N·V,), or (N·V, K) where samples are mixed, `labels` (N,), `names`, and the `problems` of files that
        cannot be read. Order and random parameters follow from the seed and the epoch."""
        self.loader.set_epoch(epoch)
        return iter(self.loader)


class Splits(NamedTuple):
    """The splits of a data set. Where there is no val beside test, `val` is `test`, or the other way round."""

    train: Split
    val: Split
    test: Split


def open_dataset(
    config: ConfigSource, *, device: torch.device | str = "cpu", progress: Progress = show_progress
) -> Splits:
    """The data of a configuration, for a training loop of your own.

    Args:
        config: as of `train`; `data`, `augment`, `eval`, `train.batch_size` and `run.seed` matter.
        device: where batches end up.
        progress: shows the reading of files.

    Raises:
        InputError: a missing or empty folder, fewer than two classes, a split without items, or leaking groups.
    """
    settings = load_config(config)
    source = open_source(settings, progress=progress)
    loaders = create_loaders(settings, source, torch.device(device))
    return Splits(*(Split(loader, source.classes) for loader in loaders))
