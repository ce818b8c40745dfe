"""A data set as loaders; and for a training loop of your own: items by index, batches by iteration."""

import logging
from collections.abc import Generator, Iterator, Sequence
from typing import NamedTuple
from weakref import ref

import torch
from torch import Tensor
from torch.utils.data import Dataset

from cbam3d.config import Config, ConfigSource, load_config
from cbam3d.data.augment import BatchTransform, Mix, train_crops, train_transforms
from cbam3d.data.batch import SampleIndex
from cbam3d.data.crops import EvalCrops
from cbam3d.data.features import FeatureSet
from cbam3d.data.images import ImageDataset
from cbam3d.data.loader import Batch, EvalBatches, Loader, Samples, TrainBatches, visits
from cbam3d.data.parameters import Transform
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.runs.data import Source, as_decided, mirrors, open_source
from cbam3d.runs.own_input import with_own_input
from cbam3d.runs.progress import show_progress

logger = logging.getLogger(__name__)


class Split(Dataset[tuple[Tensor, int | Tensor]]):
    """One split of a data set, sampled, cropped, transformed and normalised as configured.

    `split[i]` is the pair of an item's input, float32 (C, T, H, W) or (C, H, W), and its label: its class number, or
    where it may have several, whether it has each class, bool (K,). Where evaluation takes
    V views of an item, the input is (V, C, *S). A training item is transformed as in the first epoch.

    Args:
        loader: of its batches.
        classes: names in the order of their numbers.

    Examples:
        >>> import cbam3d
        >>> splits = cbam3d.open_dataset({"config": "folder", "data.root": "videos"})
        >>> splits.test.classes == splits.train.classes
        True
    """

    def __init__(self, loader: Loader, classes: list[str]) -> None:
        self.loader, self.classes = loader, classes

    def __repr__(self) -> str:
        return f"Split({counted(len(self), 'item')} of {len(self.classes):,} classes, {len(self.loader):,} batches)"

    def __len__(self) -> int:
        """Number of items."""
        return len(self.loader.data)

    def __getitem__(self, index: int) -> tuple[Tensor, int | Tensor]:
        """
        Raises:
            IndexError: no such item; negative numbers count from the end.
            InputError: its file cannot be read.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"item {index} of {len(self)}")
        index %= len(self)
        packed = self.loader.data.__getitems__([SampleIndex(0, index)])
        if packed.problems:
            raise InputError(": ".join(packed.problems[0]))
        views = self.loader.transform(packed.to(self.loader.device))
        label = packed.labels[0]
        return views[0] if len(views) == 1 else views, label if label.ndim else int(label)

    def name(self, index: int) -> str:
        """The path of an item below the root of the data."""
        return self.loader.data.name(index)

    def batches(self, epoch: int = 0) -> Iterator[Batch]:
        """The batches of an epoch, on the device: `inputs` (N·V, C, *S), the V views of a sample one after the other,
        `targets` (N·V,), or (N·V, K) where samples are mixed or may have several labels, `labels` (N,), `names`, and
        the `problems` of files that cannot be read. Order and random parameters follow from the seed and the epoch.
        Training samples that fill no batch wait for another epoch; `len(split.loader)` is the number of batches. A pass
        ends where another through the same items begins; to go on with it is a RuntimeError."""
        return _Pass(self.loader, epoch)


class _Pass(Iterator[Batch]):
    """A pass through a loader, of which there is one at a time."""

    def __init__(self, loader: Loader, epoch: int) -> None:
        self.loader, self.epoch = loader, epoch
        self.batches: Generator[Batch, None, None] | None = None

    def __next__(self) -> Batch:
        if self.batches is None:
            if (other := self.loader.current()) is not None:
                other.close()
            self.loader.current = ref(self)
            self.loader.set_epoch(self.epoch)
            self.batches = iter(self.loader)
        elif self.loader.current() is not self:
            raise RuntimeError("another pass through these items has begun")
        return next(self.batches)

    def close(self) -> None:
        """End it, and its workers."""
        if self.batches is not None:
            self.batches.close()


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

    Returns: the splits train, val and test; without a val split in the data, val is test, and a warning says so. Files
    that cannot be read are in none, and named by warnings.

    Examples:
        >>> import cbam3d
        >>> data = {"config": "folder", "data.root": "videos", "data.size": 64, "data.short_side": 64}
        >>> splits = cbam3d.open_dataset(data)
        >>> batch = next(splits.train.batches(epoch=0))
        >>> batch.inputs.shape
        torch.Size([16, 3, 8, 64, 64])
    """
    settings = with_own_input(load_config(config))
    source = open_source(settings, progress=progress)
    for name, reason in source.problems:
        logger.warning(f"skipped {name}: {reason}")
    if source.validation is source.test:
        logger.warning("no val split beside test: val is test, and an epoch chosen by it has too good a score there")
    loaders = create_loaders(as_decided(settings, source), source, torch.device(device))
    return Splits(*(Split(loader, source.classes) for loader in loaders))


def create_loaders(
    config: Config, source: Source, device: torch.device, rank: int = 0, world_size: int = 1
) -> tuple[Loader, Loader, Loader]:
    """The loaders of the training, validation and test data; the last two may be one.

    Raises:
        InputError: a batch size that the processes or data.clips_per_visit do not divide, or train.accumulate above
            the clips of a process.
    """
    data, augment, seed = config.data, config.augment, config.run.seed
    per_visit = 1 if source.images else data.clips_per_visit
    if config.train.batch_size % (world_size * per_visit):
        parts = f"the {world_size} processes" + (f" times data.clips_per_visit {per_visit}" if per_visit > 1 else "")
        raise InputError(f"train.batch_size must be a multiple of {parts}, got {config.train.batch_size}")
    share = config.train.batch_size // world_size
    if config.train.accumulate > share:
        raise InputError(f"train.accumulate must not exceed the {share} clips a process, got {config.train.accumulate}")
    crops = train_crops(data.sides, augment.crop_scale, augment.crop_padding, augment.rand_augment)
    transforms = train_transforms(mirrors(config, source), augment.color_jitter, augment.rotation, augment.erasing)
    mix = Mix(len(source.classes), augment.mixup, augment.cutmix, seed) if augment.mixup or augment.cutmix else None
    indices = train_batches(config, source.train, source.classes, per_visit, rank, world_size)
    train = _loader(config, source, device, source.train, indices, crops, transforms, mix)
    return train, *held_out_loaders(config, source, device, rank, world_size)


def held_out_loaders(
    config: Config, source: Source, device: torch.device, rank: int = 0, world_size: int = 1
) -> tuple[Loader, Loader]:
    """The loaders of the validation and test data; they may be one."""
    mirrored, e = config.scores_mirrored, config.eval
    crops = EvalCrops(config.data.sides, e.num_crops, mirrored)
    views = (1 if source.images else e.num_clips) * e.num_crops * (1 + mirrored)

    def loader(items: Samples) -> Loader:
        batches = EvalBatches(items, max(1, e.batch_size // views), rank, world_size)
        return _loader(config, source, device, items, batches, [crops])

    test = loader(source.test)
    return test if source.validation is source.test else loader(source.validation), test


def _loader(
    config: Config,
    source: Source,
    device: torch.device,
    items: Samples,
    batches: TrainBatches | EvalBatches,
    crops: Sequence[Transform],
    transforms: Sequence[Transform] = (),
    mix: Mix | None = None,
) -> Loader:
    if isinstance(items, ImageDataset) and config.data.on_device:
        items = items.to(device)
    transform = BatchTransform(crops, transforms, *config.data.scaling, config.run.seed)
    num_workers = 0 if source.images else config.data.num_workers  # images are in memory already
    return Loader(items, batches, transform, num_workers, device, mix)


def train_batches(
    config: Config, items: Samples | FeatureSet, classes: list[str], per_visit: int, rank: int, world_size: int
) -> TrainBatches:
    """The order of an epoch's items, of which each gives `per_visit` clips of a batch."""
    weights = visits(items.labels, config.data.balance, config.data.background, classes)
    batch_size = config.train.batch_size // per_visit
    return TrainBatches(items, batch_size, config.run.seed, rank, world_size, config.train.limit_batches, weights)


def first_inputs(config: Config, source: Source) -> Tensor:
    """A batch of training samples as they are scored, without augmentation; the same in every process.

    Raises:
        InputError: no sample of any batch can be read.
    """
    data = config.data
    batches = TrainBatches(source.train, config.train.batch_size, config.run.seed)
    transform = BatchTransform([EvalCrops(data.sides)], [], *data.scaling, config.run.seed)
    for batch in Loader(source.train, batches, transform, 0, torch.device("cpu")):
        if len(batch.labels):
            return batch.inputs
    raise InputError(f"{data.root}: no training {source.recipe.item} can be read")
