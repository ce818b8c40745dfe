"""A configuration and a data set -> what trains it."""

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from rich.console import Console

import cbam3d
from cbam3d.assemble import (
    build_model,
    create_loaders,
    create_training,
    first_inputs,
    memory_format,
    new_parameters,
    plain,
)
from cbam3d.attention import guard_conv3d
from cbam3d.config import Config
from cbam3d.console import print_skipped
from cbam3d.data.loader import Loader
from cbam3d.engine import evaluate as scoring
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.stop import StopRequest
from cbam3d.engine.train import Settings, Trainer
from cbam3d.errors import InputError
from cbam3d.models.ours import attention_of
from cbam3d.sources import Source


def create_trainer(
    config: Config,
    source: Source,
    fabric: Fabric,
    folder: Path,
    console: Console,
    begun: dict[str, Any] | None = None,
    keeps: bool = True,
) -> tuple[Trainer, Loader]:
    """What trains, and the loader of the test data; `begun` is the checkpoint of a run to resume, `keeps` whether the
    folder stays."""
    if config.run.sync_batchnorm and fabric.device.type != "cuda":
        raise InputError(f"run.sync_batchnorm needs GPUs, the device is {fabric.device}")
    filled = config if begun is None else replace(config, model=replace(config.model, weights=None))
    model = build_model(filled, len(source.classes), source.images)
    if config.run.precision == "bf16-mixed" and fabric.device.type == "cpu":
        guard_conv3d(model)
    new = new_parameters(model) if begun is None else begun.get("new_parameters", [])
    train_loader, validation_loader, test_loader = create_loaders(config, source, fabric)
    if begun is None and config.model.weights is None and hasattr(model, "init_from_data"):
        model.init_from_data(first_inputs(config, source))  # type: ignore[operator]
    skipped = SkippedFiles(folder / "skipped.csv", config.data.max_bad_videos, fabric.is_global_zero, keeps)
    print_skipped(console, skipped.add(source.problems))
    optimizer, schedule, average = create_training(config, model, len(train_loader), new)
    console.print(_summary(config, source, model, fabric.device, new))
    if config.run.compile:
        model.compile()
    model, optimizer = fabric.setup(model, optimizer)
    t = config.train
    settings = Settings(
        epochs=t.epochs,
        evaluate_every=config.eval.every_epochs,
        primary="top1" if source.images else "video_top1",
        seed=config.run.seed,
        label_smoothing=t.label_smoothing,
        clip_grad_norm=t.clip_grad_norm,
        accumulate=t.accumulate,
        max_bad_steps=t.max_bad_steps,
        early_stopping=t.early_stopping,
        checkpoint_minutes=t.checkpoint_minutes,
        log_every=t.log_every,
        memory_format=memory_format(config, source.images),
    )
    facts = {"config": plain(config), "kind": source.recipe.kind, "classes": source.classes}
    facts |= {"versions": _versions(), "new_parameters": new}
    trainer = Trainer(
        fabric,
        model,
        optimizer,
        schedule,
        train_loader,
        partial(score, config, source, fabric, validation_loader),
        folder,
        skipped,
        console,
        settings,
        facts,
        average,
        StopRequest(t.max_hours),
    )
    return trainer, test_loader


def score(config: Config, source: Source, fabric: Fabric, loader: Any, model: torch.nn.Module) -> scoring.Evaluation:
    """Score a network on the batches of a loader."""
    return scoring.evaluate(fabric, model, loader, len(source.classes), config.eval.batch_size, source.images)


def counted_parameters(model: torch.nn.Module, new: Collection[str]) -> str:
    """How many parameters there are, how many learn, and how many of those no pretrained weights gave (`new`)."""
    sizes = {name: p.numel() for name, p in model.named_parameters()}
    learning = {name: p.numel() for name, p in model.named_parameters() if p.requires_grad}
    text = f"{sum(sizes.values()):,} parameters"
    if len(learning) < len(sizes):
        text += f", of which {sum(learning.values()):,} learn"
    if new:
        text += f" ({sum(learning.get(name, 0) for name in new):,} new ones)"
    return text


def _summary(config: Config, source: Source, model: torch.nn.Module, device: torch.device, new: Collection[str]) -> str:
    mechanism = attention_of(config.model.name, config.model.attention)
    attention = f" with {mechanism}" if mechanism else ""
    train, test = len(source.train), len(source.test)
    validation = "" if source.validation is source.test else f"{len(source.validation):,} to validate, "
    return (
        f"{config.model.name}{attention}, {counted_parameters(model, new)}, on {device}; "
        f"{train:,} {source.recipe.kind}s for training, {validation}{test:,} to test, {len(source.classes)} classes"
    )


def _versions() -> dict[str, Any]:
    return {
        "cbam3d": cbam3d.__version__,
        "torch": str(torch.__version__),
        "saved": datetime.now().isoformat(timespec="seconds"),
    }
