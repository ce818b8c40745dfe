"""A configuration and its data -> loaders."""

from collections.abc import Sequence

import torch
from torch import Tensor

from cbam3d.config import Config
from cbam3d.data.augment import BatchTransform, Mix, Step, train_crops, train_transforms
from cbam3d.data.crops import TestCrops
from cbam3d.data.images import ImageDataset
from cbam3d.data.loader import EvalBatches, Loader, Samples, TrainBatches
from cbam3d.errors import InputError
from cbam3d.runs.data import Source


def create_loaders(
    config: Config, source: Source, device: torch.device, rank: int = 0, world_size: int = 1
) -> tuple[Loader, Loader, Loader]:
    """The loaders of the training, validation and test data; the last two may be one.

    Raises:
        InputError: a batch size that the processes or data.clips_per_visit do not divide.
    """
    data, augment, seed = config.data, config.augment, config.run.seed
    per_visit = 1 if source.images else data.clips_per_visit
    if config.train.batch_size % (world_size * per_visit):
        parts = f"the {world_size} processes" + (f" times data.clips_per_visit {per_visit}" if per_visit > 1 else "")
        raise InputError(f"train.batch_size must be a multiple of {parts}, got {config.train.batch_size}")
    share = config.train.batch_size // world_size
    if config.train.accumulate > share:
        raise InputError(f"train.accumulate must not exceed the {share} clips a process, got {config.train.accumulate}")
    flip = source.recipe.flip_keeps_label is True if augment.flip is None else augment.flip
    crops = train_crops(data.size, augment.crop_scale, augment.crop_padding, augment.rand_augment)
    transforms = train_transforms(flip, augment.color_jitter, augment.rotation, augment.erasing)
    mix = Mix(len(source.classes), augment.mixup, augment.cutmix, seed) if augment.mixup or augment.cutmix else None
    test_crops = TestCrops(data.size, config.eval.num_crops, config.eval.flip)
    views = (1 if source.images else config.eval.num_clips) * config.eval.num_crops * (1 + config.eval.flip)

    def loader(
        items: Samples,
        batches: TrainBatches | EvalBatches,
        crops: Sequence[Step],
        transforms: Sequence[Step] = (),
        mix: Mix | None = None,
    ) -> Loader:
        if isinstance(items, ImageDataset) and data.on_device:
            items = items.to(device)
        transform = BatchTransform(crops, transforms, data.mean, data.std, seed)
        num_workers = 0 if source.images else data.num_workers  # images are in memory already
        return Loader(items, batches, transform, num_workers, device, mix)

    def held_out(items: Samples) -> Loader:
        batches = EvalBatches(items, max(1, config.eval.batch_size // views), rank, world_size)
        return loader(items, batches, [test_crops])

    limit = config.train.limit_batches
    indices = TrainBatches(source.train, config.train.batch_size // per_visit, seed, rank, world_size, limit)
    train = loader(source.train, indices, crops, transforms, mix)
    test = held_out(source.test)
    return train, test if source.validation is source.test else held_out(source.validation), test


def first_inputs(config: Config, source: Source) -> Tensor:
    """A batch of training samples as they are scored, without augmentation; the same in every process.

    Raises:
        InputError: no sample of any batch can be read.
    """
    data = config.data
    batches = TrainBatches(source.train, config.train.batch_size, config.run.seed)
    transform = BatchTransform([TestCrops(data.size)], [], data.mean, data.std, config.run.seed)
    for batch in Loader(source.train, batches, transform, 0, torch.device("cpu")):
        if len(batch.labels):
            return batch.inputs
    raise InputError(f"{data.root}: no training {source.recipe.kind} can be read")
