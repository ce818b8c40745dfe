"""A configuration and its data -> what trains the network."""

import logging
from collections.abc import Collection, Iterable
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d import __version__
from cbam3d.attention import guard_conv3d
from cbam3d.config import Config, TrainConfig
from cbam3d.data.features import FeatureLoader
from cbam3d.data.loader import Loader, visits
from cbam3d.engine.losses import Loss, create_loss
from cbam3d.engine.optim import MovingAverage, create_optimizer, freeze, freeze_norms
from cbam3d.engine.progress import Progress, no_progress
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.schedule import Schedule
from cbam3d.engine.scoring import Evaluation, score
from cbam3d.engine.several import best_thresholds
from cbam3d.engine.stop import StopRequest
from cbam3d.engine.train import Trainer
from cbam3d.errors import InputError
from cbam3d.models.ours import attention_of
from cbam3d.models.zoo import is_class_path
from cbam3d.runs.checkpoint import Checkpoint
from cbam3d.runs.data import Source
from cbam3d.runs.dataset import create_loaders, first_inputs
from cbam3d.runs.feature_cache import cached_loaders
from cbam3d.runs.network import (
    GIVEN,
    build_model,
    check_logits,
    count_parameters,
    memory_format,
    new_parameters,
    renew_head,
)
from cbam3d.runs.own_input import knows_other_classes

logger = logging.getLogger(__name__)


def create_trainer(
    config: Config,
    source: Source,
    fabric: Fabric,
    folder: Path,
    skipped: SkippedFiles,
    begun: Checkpoint | None = None,
    network: nn.Module | None = None,
    progress: Progress = no_progress,
) -> tuple[Trainer, Loader | FeatureLoader]:
    """What trains, and the test data.

    Args:
        config: of the run.
        source: its data.
        fabric: launched.
        folder: of the run; exists.
        skipped: records files that cannot be used.
        begun: the checkpoint of a run to resume.
        network: to train in place of the one that the configuration names.
        progress: shows the progress of an epoch.

    Raises:
        InputError: values that do not fit the data, the network or the device.
    """
    _check_values(config, source, fabric, begun is None)
    images, shown = source.images, progress if fabric.is_global_zero else no_progress
    stop = StopRequest(config.train.max_hours)  # hours count from here, those for features too
    model = _network(config, source, fabric.device, begun, network)
    new = new_parameters(model) if begun is None else begun.state.get("new_parameters", [])
    freeze_layers(config.train, model, new)
    from_scratch = network is None and config.model.weights is None and not is_class_path(config.model.name)
    if from_scratch and begun is None and (config.train.freeze or config.train.freeze_norms):
        logger.warning("train.freeze, train.freeze_norms: without model.weights, frozen layers keep random values")
    loaders = create_loaders(config, source, fabric.device, fabric.global_rank, fabric.world_size)
    skipped.add(source.problems)
    logger.info(_summary(config, source, model, fabric.device, new))
    if config.train.cached_views:
        if begun is not None:  # features are those of the backbone that the run began with
            begun.fill(model, begun.state["model"])
        *loaders, problems = _features(config, source, model, loaders, fabric, folder, shown)
        skipped.add(problems)
    train_loader, validation_loader, test_loader = loaders
    loss = _loss(config, source)
    if config.run.compile:
        model.compile()
    wrapped = fabric.setup_module(model)
    scaled = config.run.precision == "16-mixed"  # a fused step would unscale gradients itself, after they are clipped
    fused = fabric.device.type == "cuda" and not _divided(config, fabric) and not scaled
    optimizer, schedule, average = create_training(config.train, model, len(train_loader), new, fused)

    facts = _facts(config, source, new)
    if begun is not None and begun.state.get("thresholds") is not None:
        facts["thresholds"] = begun.state["thresholds"]

    def evaluate(scored: nn.Module, held_out: Iterable[Any]) -> Evaluation:
        how = (len(source.classes), config.eval.batch_size, images, loss.apart, shown)
        found = score(fabric, scored, held_out, *how)
        given = found.predictions
        if given.several and held_out is validation_loader and source.validation is not source.test:
            facts["thresholds"] = best_thresholds(given.probabilities, given.labels).tolist()
        return found

    trainer = Trainer(
        fabric=fabric,
        model=wrapped,
        optimizer=cast(torch.optim.Optimizer, fabric.setup_optimizers(optimizer)),
        schedule=schedule,
        loader=train_loader,
        held_out=validation_loader,
        evaluate=evaluate,
        folder=folder,
        skipped=skipped,
        config=config,
        facts=facts,
        loss=loss.to(fabric.device),
        average=average,
        stop=stop,
        progress=shown,
        primary="video_map" if source.several else "top1" if images else "video_top1",
        memory_format=memory_format(config, images),
    )
    return trainer, test_loader


def _check_values(config: Config, source: Source, fabric: Fabric, begins: bool) -> None:
    """Raise InputError for values that do not fit each other, the device, or the number of processes."""
    t, processes = config.train, fabric.world_size
    if config.run.sync_batchnorm and fabric.device.type != "cuda":
        raise InputError(f"run.sync_batchnorm needs GPUs, the device is {fabric.device}")
    if begins and t.head_epochs >= t.epochs:
        text = f"train.head_epochs {t.head_epochs} leaves none of train.epochs {t.epochs} for other layers"
        raise InputError(f"{text}: more epochs, or train.freeze to train the head alone")
    if begins and config.model.attention_options and not attention_of(config.model.name, config.model.attention):
        logger.info("without attention, model.attention_options are not used")
    if processes > 1 and config.passes_together:
        per_visit = 1 if source.images or t.cached_views else config.data.clips_per_visit
        fewest = min(t.batch_size // per_visit, len(source.train)) // processes * per_visit
        if t.accumulate > fewest:
            raise InputError(f"train.accumulate must not exceed the {fewest} clips that a process has of a batch")
    if begins and source.validation is source.test and (t.schedule == "plateau" or t.early_stopping):
        key = "train.schedule plateau" if t.schedule == "plateau" else "train.early_stopping"
        logger.warning(f"no val split: {key} follows the test data, and the final scores are optimistic for it")
    if _divided(config, fabric) and t.ema is not None:
        raise InputError("train.ema averages whole weights: set run.strategy replicate, or train.ema null")


def _divided(config: Config, fabric: Fabric) -> bool:
    """Whether each process has a part of the weights."""
    return config.run.strategy == "shard" and fabric.world_size > 1


def _network(
    config: Config, source: Source, device: torch.device, begun: Checkpoint | None, given: nn.Module | None
) -> nn.Module:
    """The network to train; its pretrained weights matter where training begins only."""
    num_classes, images = len(source.classes), source.images
    model = given
    if model is None:
        empty = config.override({"model.weights": None})
        model = build_model(config if begun is None else empty, num_classes, images)
        if begun is None and config.model.weights is not None:
            if knows_other_classes(config, source.classes):
                renew_head(model, *(build_model(empty, n, images) for n in (num_classes, num_classes + 1)))
            report: Any = model.weights_report
            logger.info(f"weights of {config.model.weights}: {report.summary}")
    elif config.run.sync_batchnorm:
        raise InputError("run.sync_batchnorm is for networks by name: convert yours (SyncBatchNorm), and leave it out")
    if given is not None or is_class_path(config.model.name):
        check_logits(model, config, num_classes, images)
    if config.run.precision == "bf16-mixed" and device.type == "cpu":
        guard_conv3d(model)
    if begun is None and config.model.weights is None and hasattr(model, "init_from_data"):
        model.init_from_data(first_inputs(config, source))  # type: ignore[operator]
    return model


def _features(
    config: Config,
    source: Source,
    model: nn.Module,
    loaders: tuple[Loader, Loader, Loader],
    fabric: Fabric,
    folder: Path,
    shown: Progress,
) -> tuple[FeatureLoader, FeatureLoader, FeatureLoader, list[tuple[str, str]]]:
    """Loaders of the features before the head, which the network then takes, and the files that could not be read."""
    kept = Path(config.train.cache) if config.train.cache else folder / "features"
    model.to(fabric.device).eval()
    try:
        found = cached_loaders(config, model, source.images, loaders, fabric, kept, shown, source.classes)
    except KeyboardInterrupt:
        if not config.train.cache:
            logger.info(f"the features so far are kept: --run.dir {folder} goes on from them")
        raise
    model.takes_features = True  # type: ignore[assignment]
    return found


def _loss(config: Config, source: Source) -> Loss:
    """The loss of the training set."""
    labels, t = np.asarray(source.train.labels), config.train
    shown = visits(labels, 0.0, config.data.background, source.classes)  # what training sees, before it is balanced
    often = np.ones(len(labels)) if shown is None else shown
    counts = often @ labels if source.several else np.bincount(labels, often, minlength=len(source.classes))
    weighing = (t.label_smoothing, t.class_weights, t.logit_adjustment)
    return create_loss(*weighing, counts.tolist(), source.classes, len(labels) if config.classes_apart else None)


def _facts(config: Config, source: Source, new: Collection[str]) -> dict[str, Any]:
    """What every checkpoint tells beside the weights."""
    versions = {
        "cbam3d": __version__,
        "torch": str(torch.__version__),
        "saved": datetime.now().isoformat(timespec="seconds"),
    }
    kind, classes = source.recipe.item, source.classes
    facts = {"config": config.plain(), "kind": kind, "classes": classes, "drawn": source.drawn}
    return {**facts, "versions": versions, "new_parameters": new}


def freeze_layers(t: TrainConfig, model: nn.Module, new: Collection[str] = ()) -> None:
    """Freeze what is not to be trained.

    Raises:
        InputError: a pattern of train.freeze that fits nothing, or train.head_epochs where all parameters are new.
    """
    if t.head_epochs and not new:
        if getattr(model, "weights_report", None) is None:
            raise InputError("train.head_epochs: no pretrained weights, so that all parameters are new")
        logger.info("train.head_epochs: the weights contain every parameter, so all layers learn from the start")
    if t.freeze_norms:
        freeze_norms(model, new)
    freeze(model, t.freeze, new)


def create_training(
    t: TrainConfig, model: nn.Module, steps_per_epoch: int, new: Collection[str] = (), fused: bool = False
) -> tuple[torch.optim.Optimizer, Schedule, MovingAverage | None]:
    """Optimiser, learning rate and moving average of a network.

    Args:
        t: what to build.
        model: the network.
        steps_per_epoch: of the optimiser.
        new: names of parameters that pretrained weights did not give.
        fused: one kernel for all parameters, where the optimiser has it.

    Raises:
        InputError: no such optimiser or option.
    """
    rate = t.learning_rate * (t.batch_size / t.base_batch_size if t.base_batch_size else 1.0)
    options = t.optimizer_options
    if t.optimizer in ("sgd", "SGD"):
        options = {"momentum": t.momentum, "nesterov": t.momentum > 0} | options
    elif t.momentum != TrainConfig().momentum:
        raise InputError(f"train.momentum is of sgd: set train.optimizer_options for {t.optimizer}, got {t.momentum}")
    optimizer = create_optimizer(
        model, t.optimizer, rate, t.weight_decay, options, new, t.new_rate_factor, t.layer_decay, fused
    )
    if t.warmup_epochs >= t.epochs:
        logger.warning(
            f"train.warmup_epochs {t.warmup_epochs:g} takes all {t.epochs} epochs: the rate is never reached"
        )
    if late := [epoch for epoch in t.milestones if epoch >= t.epochs]:
        logger.warning(f"train.milestones {late[0]:g} lies beyond the {t.epochs} epochs, and has no effect")
    schedule = Schedule(
        optimizer,
        t.schedule,
        t.epochs * steps_per_epoch,
        round(t.warmup_epochs * steps_per_epoch),
        [round(epoch * steps_per_epoch) for epoch in t.milestones],
        t.gamma,
        t.patience,
        t.head_epochs * steps_per_epoch if new else 0,
    )
    if t.ema is None:
        return optimizer, schedule, None
    return optimizer, schedule, MovingAverage(model, t.ema)


def _summary(config: Config, source: Source, model: nn.Module, device: torch.device, new: Collection[str]) -> str:
    mechanism = attention_of(config.model.name, config.model.attention)
    attention = f" with {mechanism}" if mechanism else ""
    name = type(model).__name__ if config.model.name == GIVEN else config.model.name
    train, test = len(source.train), len(source.test)
    validation = "" if source.validation is source.test else f"{len(source.validation):,} to validate, "
    return (
        f"{name}{attention}, {_count(model, new)}, on {device}; "
        f"{train:,} {source.recipe.item}s for training, {validation}{test:,} to test, {len(source.classes)} classes"
    )


def _count(model: nn.Module, new: Collection[str]) -> str:
    """How many parameters there are, how many are trained, and how many of those no pretrained weights contain."""
    total, trained = count_parameters(model), count_parameters(model, trained=True)
    text = f"{total:,} parameters" + (f", of which {trained:,} are trained" if trained < total else "")
    if new:
        sizes = (p.numel() for name, p in model.named_parameters() if p.requires_grad and name in new)
        text += f" ({sum(sizes):,} new ones)"
    return text
