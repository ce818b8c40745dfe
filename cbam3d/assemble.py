"""A configuration -> loaders, network and devices: where the rooms meet."""

import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict
from typing import Any, TypeVar, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from cbam3d.attention import attention_options
from cbam3d.config import Config, Train
from cbam3d.data.augment import BatchTransform, Mix, Step, train_crops, train_transforms
from cbam3d.data.crops import TestCrops
from cbam3d.data.images import ImageDataset
from cbam3d.data.loader import EvalBatches, Loader, Samples, TrainBatches
from cbam3d.data.rng import torch_seeded
from cbam3d.engine.optim import MovingAverage, create_optimizer, freeze
from cbam3d.engine.schedule import Schedule
from cbam3d.errors import InputError, Stopped, is_foreign
from cbam3d.models import create_model
from cbam3d.models.ours import OURS, attention_of, network_options
from cbam3d.models.zoo import check_model_name
from cbam3d.sources import Source

T = TypeVar("T")


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
    share = config.train.batch_size // world_size
    if config.train.accumulate > share:
        raise InputError(f"train.accumulate must not exceed the {share} clips a process, got {config.train.accumulate}")
    flip = source.recipe.flip_keeps_label is True if augment.flip is None else augment.flip
    cuts = train_crops(data.size, augment.crop_scale, augment.crop_padding, augment.rand_augment)
    changes = train_transforms(flip, augment.color_jitter, augment.rotation, augment.erasing)
    mix = Mix(len(source.classes), augment.mixup, augment.cutmix, seed) if augment.mixup or augment.cutmix else None
    test_crops = TestCrops(data.size, config.eval.num_crops, config.eval.flip)
    views = (1 if source.images else config.eval.num_clips) * config.eval.num_crops * (1 + config.eval.flip)

    def loader(
        items: Samples,
        batches: TrainBatches | EvalBatches,
        cuts: Sequence[Step],
        changes: Sequence[Step] = (),
        mix: Mix | None = None,
    ) -> Loader:
        if isinstance(items, ImageDataset) and data.on_device:
            items = items.to(fabric.device)
        transform = BatchTransform(cuts, changes, data.mean, data.std, seed)
        num_workers = 0 if source.images else data.num_workers  # images are in memory already
        return Loader(items, batches, transform, num_workers, fabric.device, mix)

    def held_out(items: Samples) -> Loader:
        batches = EvalBatches(items, max(1, config.eval.batch_size // views), rank, world_size)
        return loader(items, batches, [test_crops])

    limit = config.train.limit_batches
    visits = TrainBatches(source.train, config.train.batch_size // per_visit, seed, rank, world_size, limit)
    train = loader(source.train, visits, cuts, changes, mix)
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


def check_names(config: Config) -> None:
    """Raise InputError for a network or a mechanism that does not exist, before data is read for it."""
    model = config.model
    try:
        check_model_name(model.name)
        if (mechanism := attention_of(model.name, model.attention)) is not None:
            attention_options(mechanism)
    except ValueError as error:
        raise InputError(f"model: {error}") from None


def build_model(config: Config, num_classes: int, images: bool) -> nn.Module:
    """The network that the configuration names, for images or clips."""
    model, run = config.model, config.run
    attention, options = dict(model.attention_options), dict(model.options)
    try:
        mechanism = attention_of(model.name, model.attention)
        if mechanism is not None and "num_frames" in attention_options(mechanism):
            attention.setdefault("num_frames", config.data.num_frames)
        if model.name in OURS and "size" in network_options(model.name):
            side = config.data.size
            options.setdefault("size", side if images else (config.data.num_frames, side, side))
        with torch_seeded(run.seed):
            network = create_model(
                model.name,
                num_classes,
                ndim=2 if images else 3,
                attention=model.attention,
                attention_options=attention,
                weights=model.weights,
                **options,
            )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:  # torch.nn refuses in several ways
        if is_foreign(error):
            raise
        foreign = "unexpected keyword argument" in str(error)  # of the network that the configuration names
        advice = "; --model.options {} drops the options of the configuration" if foreign else ""
        raise InputError(f"model: {' '.join(str(error).split())}{advice}") from None
    if run.sync_batchnorm:
        network = keep_hooks_and_sync_batchnorm(network)
    return network.to(memory_format=memory_format(config, images))  # type: ignore[call-overload]


def memory_format(config: Config, images: bool) -> torch.memory_format:
    """Of feature maps."""
    if not config.run.channels_last:
        return torch.contiguous_format
    return torch.channels_last if images else torch.channels_last_3d


def create_training(
    config: Config, model: nn.Module, steps_per_epoch: int, new: Collection[str] = ()
) -> tuple[torch.optim.Optimizer, Schedule, MovingAverage | None]:
    """Optimiser, learning rate and moving average of a network.

    Args:
        config: what to build.
        model: the network.
        steps_per_epoch: of the optimiser.
        new: names of parameters that pretrained weights did not give.

    Raises:
        InputError: no such optimiser or option, or a pattern of train.freeze that fits nothing.
    """
    t = config.train
    freeze(model, t.freeze, new)
    rate = t.learning_rate * (t.batch_size / t.base_batch_size if t.base_batch_size else 1.0)
    options = t.optimizer_options
    if t.optimizer in ("sgd", "SGD"):
        options = {"momentum": t.momentum, "nesterov": t.momentum > 0} | options
    elif t.momentum != Train.momentum:
        raise InputError(f"train.momentum is of sgd: set train.optimizer_options for {t.optimizer}, got {t.momentum}")
    optimizer = create_optimizer(model, t.optimizer, rate, t.weight_decay, options, new, t.new_rate_factor)
    schedule = Schedule(
        optimizer,
        t.schedule,
        t.epochs * steps_per_epoch,
        round(t.warmup_epochs * steps_per_epoch),
        [round(epoch * steps_per_epoch) for epoch in t.milestones],
        t.gamma,
        t.patience,
    )
    if t.ema is None:
        return optimizer, schedule, None
    return optimizer, schedule, MovingAverage(model, t.ema)


def create_fabric(config: Config) -> Fabric:
    """Device, precision and processes, started; how many processes there are, torchrun and `fabric run` say."""
    run = config.run
    by_fabric_run = "LT_CLI_USED" in os.environ
    options: dict[str, Any] = {"accelerator": run.accelerator, "precision": run.precision, "devices": run.devices}
    if by_fabric_run:  # it has options of its own, and refuses others than the defaults here
        options = {key: options[key] for key in ("accelerator", "precision") if options[key] not in ("auto", "32-true")}
    elif "LOCAL_WORLD_SIZE" in os.environ:  # torchrun
        options["devices"] = int(os.environ["LOCAL_WORLD_SIZE"])
        options["num_nodes"] = int(os.environ["WORLD_SIZE"]) // options["devices"]
    try:
        fabric = Fabric(**options)
    except Exception as error:  # Fabric names a missing device by exceptions of several kinds
        raise InputError(f"run.accelerator {run.accelerator}, run.devices {run.devices}: {error}") from None
    if not by_fabric_run:  # which has started the processes already
        fabric.launch()
    return fabric


def by_first_process(fabric: Fabric, make: Callable[[], T]) -> T:
    """What the first process makes, handed to all: each on its own might find other files.

    Raises:
        InputError: in the first process, which says it; the others stop without a word.
    """
    if fabric.world_size == 1:
        return make()
    made, error = None, None
    if fabric.is_global_zero:
        try:
            made = make()
        except InputError as caught:
            error = caught
    made, failed = fabric.broadcast((made, error is not None))
    if failed:
        raise error or Stopped("", 2)
    return cast(T, made)


def new_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that the pretrained weights did not give; none where there are no such weights."""
    report = getattr(model, "weights_report", None)
    return [] if report is None else [name for name, _ in model.named_parameters() if name in set(report.new)]


def keep_hooks_and_sync_batchnorm(model: nn.Module) -> nn.Module:
    """SyncBatchNorm in place of every BatchNorm. torch's conversion drops hooks, and with them inserted attention."""
    hooks = {name: module._forward_hooks for name, module in model.named_modules() if module._forward_hooks}
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    modules = dict(model.named_modules())
    for name, kept in hooks.items():
        modules[name]._forward_hooks.update(kept)
    return model


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain data, for YAML and checkpoints."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, (list, tuple)) else value

    return simple(asdict(config))
