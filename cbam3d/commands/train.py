"""`cbam3d train`: a configuration -> a trained network in a run folder."""

import tempfile
from argparse import Namespace
from dataclasses import replace
from datetime import datetime
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning_fabric import Fabric
from rich.console import Console
from rich.table import Table

import cbam3d
from cbam3d.assemble import (
    build_model,
    create_fabric,
    create_loaders,
    create_training,
    first_inputs,
    memory_format,
    new_parameters,
    plain,
)
from cbam3d.commands.cost import multiply_adds
from cbam3d.config import Config
from cbam3d.console import print_skipped, speaker
from cbam3d.data.loader import Loader
from cbam3d.data.manifest import write_manifest
from cbam3d.engine import evaluate as scoring
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.engine.plots import plot_curves, plot_steps
from cbam3d.engine.records import EpochTable, SkippedFiles, write_json
from cbam3d.engine.stop import StopRequest
from cbam3d.engine.train import Settings, Trainer
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.models.ours import attention_of
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.results import Result
from cbam3d.sources import Source, open_source, with_manifest_of

# What a run that goes on cannot change: its steps would no longer be those of the run that was begun.
_FIXED = {
    *(f"data.{key}" for key in ("recipe", "split", "test_fraction", "groups", "clips_per_visit", "sampling")),
    *(f"train.{key}" for key in ("batch_size", "schedule", "limit_batches", "ema", "freeze", "new_rate_factor")),
    *(f"train.{key}" for key in ("optimizer", "optimizer_options", "momentum", "weight_decay")),
    "run.seed",
    "model.name",
    "model.options",
    "model.attention",
    "model.attention_options",
}


def train(arguments: list[str]) -> None:
    """Train, score, and leave a run folder."""
    config, path, given = _parse(arguments, "motion")
    resume = given.resume
    if given.dry_run:
        with tempfile.TemporaryDirectory() as folder:
            _dry_run(config, Path(folder))
        return
    folder = _run_folder(config, path.stem, resume)
    if resume and not any(argument.startswith("--config") for argument in arguments):
        config, _, _ = _parse(arguments, folder / "config.yaml")
    fabric = create_fabric(config)
    folder = fabric.broadcast(folder)
    console = speaker(fabric)
    begun = _begun(config, folder, console) if resume else None
    with fabric.rank_zero_first():  # renders or downloads once
        source = open_source(with_manifest_of(folder, config) if resume else config, console)
    if fabric.is_global_zero:
        _open_folder(folder, resume)
    fabric.barrier()
    trainer, test_loader = _create_trainer(config, source, fabric, folder, console, begun)
    if begun is not None:
        trainer.resume(begun)
    if fabric.is_global_zero:  # only now is it sure that this configuration fits the folder
        repeatable = replace(config, run=replace(config.run, dir=None))
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(repeatable), sort_keys=False))
        if source.manifest is not None:
            write_manifest(source.manifest, folder / "manifest.csv")
        _report_to_wandb(config, folder)
    evaluation, table = trainer.fit()
    if source.validation is not source.test:
        evaluation = _score(config, source, fabric, test_loader, trainer.model_to_score())
        print_skipped(console, trainer.skipped.add(evaluation.problems))
    if fabric.is_global_zero:
        result = Result.of(evaluation, source)
        _write_scores(folder, trainer, result, table)
        console.print(result.table("held out"))
        console.print(f"everything is in {folder}")


def parser(default: str | Path = "motion") -> CommandParser:
    """The options of the command that are no keys of a configuration."""
    command = CommandParser("train", train.__doc__, takes_keys=True)
    command.add_config(default)
    command.add_argument("--resume", action="store_true", help="continue the run in its folder, with its configuration")
    command.add_argument("--dry-run", action="store_true", help="build everything, try one batch, and leave nothing")
    return command


def _parse(arguments: list[str], default: str | Path) -> tuple[Config, Path, Namespace]:
    config, path, given = parse_config(arguments, parser(default))
    if given.resume and given.dry_run:
        raise InputError("--dry-run tries a run that has not begun: not with --resume")
    return config, path, given


def _create_trainer(
    config: Config,
    source: Source,
    fabric: Fabric,
    folder: Path,
    console: Console,
    begun: dict[str, Any] | None = None,
) -> tuple[Trainer, Loader]:
    """What trains, and the loader of the test data; `begun` is the checkpoint of a run that goes on."""
    if config.run.sync_batchnorm and fabric.device.type != "cuda":
        raise InputError(f"run.sync_batchnorm needs GPUs, the device is {fabric.device}")
    filled = config if begun is None else replace(config, model=replace(config.model, weights=None))
    model = build_model(filled, len(source.classes), source.images)
    new = new_parameters(model) if begun is None else begun.get("new_parameters", [])
    train_loader, validation_loader, test_loader = create_loaders(config, source, fabric)
    if begun is None and config.model.weights is None and hasattr(model, "init_from_data"):
        model.init_from_data(first_inputs(config, source))  # type: ignore[operator]
    skipped = SkippedFiles(folder / "skipped.csv", config.data.max_bad_videos, fabric.is_global_zero)
    print_skipped(console, skipped.add(source.problems))
    optimizer, schedule, average = create_training(config, model, len(train_loader), new)
    console.print(_summary(config, source, model, folder, fabric.device))
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
        partial(_score, config, source, fabric, validation_loader),
        folder,
        skipped,
        console,
        settings,
        facts,
        average,
        StopRequest(t.max_hours),
    )
    return trainer, test_loader


def _score(config: Config, source: Source, fabric: Fabric, loader: Any, model: torch.nn.Module) -> scoring.Evaluation:
    return scoring.evaluate(fabric, model, loader, len(source.classes), config.eval.batch_size, source.images)


def _begun(config: Config, folder: Path, console: Console) -> dict[str, Any]:
    """The checkpoint of the run that goes on; what differs from its configuration is said.

    Raises:
        InputError: something that cannot be changed in a run that has begun.
    """
    saved = load_tensors(folder / "checkpoints" / "last.ckpt", "checkpoint")
    if not isinstance(saved, dict) or "config" not in saved:
        raise InputError(f"{folder}/checkpoints/last.ckpt: not a checkpoint of cbam3d train")
    changed = changed_keys(saved["config"], plain(config))
    for key, (then, now) in changed.items():
        if key in _FIXED:
            raise InputError(f"{key} was {then}, is {now}: a run that has begun cannot change it")
        if key != "run.dir":
            console.print(f"changed since: {key} was {then}, is {now}", style="yellow")
    return saved


def _dry_run(config: Config, folder: Path) -> None:
    """Build everything, try one batch of training and one of scoring, and say what the run will take."""
    fabric = create_fabric(config)
    console = speaker(fabric)
    with fabric.rank_zero_first():
        source = open_source(config, console)
    trainer, test_loader = _create_trainer(config, source, fabric, folder, console)
    batch = next(iter(trainer.loader))
    loss = trainer.step(batch)
    evaluation = _score(config, source, fabric, islice(test_loader, 1), trainer.model_to_score())
    parameters = list(trainer.model.parameters())
    learning = sum(p.numel() for p in parameters if p.requires_grad)
    rows = {
        "input of a step": " x ".join(map(str, batch.inputs.shape)),
        "parameters": f"{sum(p.numel() for p in parameters):,}, of which learn {learning:,}",
        "multiply-adds a clip": f"{multiply_adds(trainer.model, batch.inputs[:1]) / 1e9:.2f} G",
        "peak memory": f"{peak_memory_gib(trainer.fabric.device):.2f} GiB",
        "steps an epoch": f"{len(trainer.loader):,}",
        "steps in all": f"{len(trainer.loader) * config.train.epochs:,}",
        "learning rate of the first step": f"{trainer.schedule.learning_rate:.3g}",
        "loss of the first step": f"{loss:.3f}",
        "scored": ", ".join(f"{count} {name.removeprefix('num_')}" for name, count in evaluation.counts.items()),
    }
    table = Table("dry run", "", show_header=False)
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    console.print("the dry run went through; nothing is kept")


def _report_to_wandb(config: Config, folder: Path) -> None:
    """Let Weights & Biases follow the TensorBoard events."""
    if config.run.wandb is None:
        return
    try:
        import wandb  # type: ignore[import-not-found]
    except ImportError:
        raise InputError('run.wandb: not installed (pip install "cbam3d[wandb]")') from None
    wandb.init(
        project=config.run.wandb,
        name=folder.name,
        id=folder.name,
        dir=folder,
        config=plain(config),
        resume="allow",
        sync_tensorboard=True,
    )


def _run_folder(config: Config, name: str, resume: bool) -> Path:
    """Where the run lives: never on top of another one."""
    if config.run.dir is not None:
        folder = Path(config.run.dir)
        if resume and not _has_run(folder):
            raise InputError(f"{folder}: nothing to resume (checkpoints/last.ckpt is missing)")
        if not resume and _has_run(folder):
            raise InputError(f"{folder} holds a run: --resume continues it, another --run.dir leaves it alone")
        return folder
    taken = [Path("runs") / name]
    while taken[-1].exists():
        taken.append(Path("runs") / f"{name}-{len(taken) + 1}")
    if not resume:
        return taken[-1]
    runs = [folder for folder in taken if _has_run(folder)]
    if not runs:
        raise InputError(f"runs/{name}: nothing to resume")
    return runs[-1]


def _has_run(folder: Path) -> bool:
    return (folder / "checkpoints" / "last.ckpt").exists()


def _open_folder(folder: Path, resume: bool) -> None:
    try:
        (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be used as the folder of a run ({error.strerror})") from None
    if not resume:
        (folder / "skipped.csv").unlink(missing_ok=True)  # of a start that failed


def _summary(config: Config, source: Source, model: torch.nn.Module, folder: Path, device: torch.device) -> str:
    mechanism = attention_of(config.model.name, config.model.attention)
    attention = f" with {mechanism}" if mechanism else ""
    parameters = sum(p.numel() for p in model.parameters())
    train, test = len(source.train), len(source.test)
    validation = "" if source.validation is source.test else f"{len(source.validation):,} to validate, "
    return (
        f"{config.model.name}{attention}, {parameters:,} parameters, on {device}; {train:,} {source.recipe.kind}s "
        f"for training, {validation}{test:,} to test, {len(source.classes)} classes; run folder {folder}"
    )


def _write_scores(folder: Path, trainer: Trainer, result: Result, table: EpochTable) -> None:
    best = {f"best_{trainer.settings.primary}": trainer.state.best_score, "best_epoch": trainer.state.best_epoch}
    facts = result.facts() | {"num_skipped": len(trainer.skipped.reasons), "epoch": trainer.state.epoch}
    result.write(folder)
    plot_curves(table, folder / "curves.png", [name for name in result.scores if "top" in name])
    plot_steps(folder / "steps.csv", folder / "steps.png")
    write_json(folder / "metrics.json", facts | best)  # the last of all: where it is, the run has ended


def _versions() -> dict[str, Any]:
    return {
        "cbam3d": cbam3d.__version__,
        "torch": str(torch.__version__),
        "saved": datetime.now().isoformat(timespec="seconds"),
    }
