"""A configuration -> loaders, network and devices: where the rooms meet."""

from dataclasses import asdict
from functools import partial
from typing import Any

import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d.config import Config
from cbam3d.data.augment import BatchTransform, Mix, crops, train_transform
from cbam3d.data.loader import EvalBatches, Loader, TrainBatches
from cbam3d.errors import InputError
from cbam3d.models import create_model
from cbam3d.sources import Source


def create_loaders(config: Config, source: Source, fabric: Fabric) -> tuple[Loader, Loader, Loader]:
    """The loaders of the data to train on, to validate and to test; the last two may be one.

    Raises:
        InputError: a batch size that the processes or the clips of a visit do not divide.
    """
    data, augment, seed = config.data, config.augment, config.run.seed
    rank, world_size = fabric.global_rank, fabric.world_size
    per_visit = 1 if source.images else data.clips_per_visit
    if config.train.batch_size % (world_size * per_visit):
        parts = f"the {world_size} processes" + (f" times data.clips_per_visit {per_visit}" if per_visit > 1 else "")
        raise InputError(f"train.batch_size must be a multiple of {parts}, got {config.train.batch_size}")
    flip = source.recipe.flip_keeps_label is True if augment.flip is None else augment.flip
    random_view = train_transform(
        data.size,
        augment.crop_scale,
        augment.crop_padding,
        flip,
        augment.color_jitter,
        augment.rand_augment,
        augment.erasing,
    )
    mix = Mix(len(source.classes), augment.mixup, augment.cutmix, seed) if augment.mixup or augment.cutmix else None

    def loader(items, batches, transform, mix=None) -> Loader:
        on_device = BatchTransform(transform, data.mean, data.std, seed)
        return Loader(items, batches, on_device, data.num_workers, fabric.device, mix)

    views = (1 if source.images else config.eval.num_clips) * config.eval.num_crops
    eval_crops = partial(crops, size=data.size, num_crops=config.eval.num_crops)

    def held_out(items) -> Loader:
        batches = EvalBatches(items, max(1, config.eval.batch_size // views), rank, world_size)
        return loader(items, batches, eval_crops)

    visits = TrainBatches(source.train, config.train.batch_size // per_visit, seed, rank, world_size)  # type: ignore[arg-type]
    train = loader(source.train, visits, lambda view: [random_view(view)], mix)
    test = held_out(source.test)
    return train, test if source.validation is source.test else held_out(source.validation), test


def build_model(config: Config, num_classes: int, images: bool) -> nn.Module:
    """The network that the configuration names, for images or clips."""
    model = config.model
    torch.manual_seed(config.run.seed)
    try:
        return create_model(
            model.name,
            num_classes,
            ndim=2 if images else 3,
            attention=model.attention,
            attention_options=model.attention_options,
            weights=model.weights,
            **model.options,
        )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:  # torch.nn refuses in several ways
        raise InputError(f"model: {' '.join(str(error).split())}") from None


def create_fabric(config: Config) -> Fabric:
    """Device, precision and processes; started."""
    run = config.run
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, precision=run.precision)
    except Exception as error:  # Fabric names a missing device by exceptions of several kinds
        raise InputError(f"run.accelerator {run.accelerator}, run.devices {run.devices}: {error}") from None
    fabric.launch()
    return fabric


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain data, for YAML and checkpoints."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, (list, tuple)) else value

    return simple(asdict(config))
