"""`cbam3d train`: a configuration -> a trained network in a run folder."""

import tempfile
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import replace
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cbam3d.assemble import by_first_process, check_names, create_fabric, plain
from cbam3d.commands.dry_run import dry_run
from cbam3d.commands.trainer import create_trainer, score
from cbam3d.config import Config
from cbam3d.console import print_skipped, speaker
from cbam3d.data.manifest import write_manifest
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.engine.plots import plot_curves, plot_steps
from cbam3d.engine.records import EpochTable
from cbam3d.engine.train import Trainer
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.outputs import make_folder
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.results import Result
from cbam3d.saved import check_state
from cbam3d.sources import open_source, refuse_changed, with_manifest_of

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
            dry_run(config, Path(folder))
        return
    begun, folder = None, Path()
    if resume:
        folder = _begun_folder(config, path.stem)
        if not any(argument.startswith("--config") for argument in arguments):
            config, _, _ = _parse(arguments, folder / "config.yaml")
    elif config.run.dir is not None and _has_run(Path(config.run.dir)):
        raise InputError(f"{config.run.dir} holds a run: --resume continues it, another --run.dir leaves it alone")
    fabric = create_fabric(config)
    console = speaker(fabric)
    if resume:
        console.print(f"run folder {folder}")
        begun = _begun(config, folder, console)
    found = with_manifest_of(folder, config) if resume else config
    source = by_first_process(fabric, lambda: open_source(found, console))
    if resume and source.manifest is not None:
        refuse_changed(source.manifest, Path(config.data.root), console)
    if not resume:
        folder = by_first_process(fabric, lambda: _new_folder(config, path.stem))
        console.print(f"run folder {folder}")
    trainer, test_loader = create_trainer(config, source, fabric, folder, console, begun)
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
        evaluation = score(config, source, fabric, test_loader, trainer.model_to_score())
        print_skipped(console, trainer.skipped.add(evaluation.problems))
    if fabric.is_global_zero:
        result = Result.of(evaluation, source)
        _write_scores(folder, trainer, result, table)
        console.print(result.table("held out", len(trainer.skipped.reasons)))
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
    check_names(config)
    if given.resume and given.dry_run:
        raise InputError("--dry-run tries a run that has not begun: not with --resume")
    return config, path, given


def _begun(config: Config, folder: Path, console: Console) -> dict[str, Any]:
    """The checkpoint of the run that goes on; what differs from its configuration is said.

    Raises:
        InputError: something that cannot be changed in a run that has begun.
    """
    path = folder / "checkpoints" / "last.ckpt"
    saved = load_tensors(path, "checkpoint")
    check_state(saved, path)
    changed = changed_keys(saved["config"], plain(config))
    for key, (then, now) in changed.items():
        if key in _FIXED:
            raise InputError(f"{key} was {then}, is {now}: a run that has begun cannot change it")
        if key != "run.dir":
            console.print(f"changed since: {key} was {then}, is {now}", style="yellow")
    return saved


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


def _begun_folder(config: Config, name: str) -> Path:
    """Where the run to resume lives: the named folder, or the last of those with the configuration's name.

    Raises:
        InputError: no run there.
    """
    if config.run.dir is not None:
        if not _has_run(Path(config.run.dir)):
            raise InputError(f"{config.run.dir}: nothing to resume (checkpoints/last.ckpt is missing)")
        return Path(config.run.dir)
    runs = [folder for folder in takewhile(Path.exists, _numbered(name)) if _has_run(folder)]
    if not runs:
        raise InputError(f"runs/{name}: nothing to resume")
    return runs[-1]


def _new_folder(config: Config, name: str) -> Path:
    """A folder for a new run: the one that is named, or the next number, taken by making it."""
    if config.run.dir is not None:
        folder = make_folder(config.run.dir)
        (folder / "skipped.csv").unlink(missing_ok=True)  # of a start that failed
    else:
        make_folder("runs")
        folder = next(folder for folder in _numbered(name) if _is_made(folder))
    make_folder(folder / "checkpoints")
    return folder


def _is_made(folder: Path) -> bool:
    """Make a folder, unless another run has it."""
    try:
        folder.mkdir()
    except FileExistsError:
        return False
    except OSError as error:
        raise InputError(f"{folder}: cannot be made ({error.strerror})") from None
    return True


def _numbered(name: str) -> Iterator[Path]:
    """runs/NAME, runs/NAME-2, …"""
    yield Path("runs") / name
    yield from (Path("runs") / f"{name}-{number}" for number in count(2))


def _has_run(folder: Path) -> bool:
    return (folder / "checkpoints" / "last.ckpt").exists()


def _write_scores(folder: Path, trainer: Trainer, result: Result, table: EpochTable) -> None:
    best = {f"best_{trainer.settings.primary}": trainer.state.best_score, "best_epoch": trainer.state.best_epoch}
    facts = result.facts() | {"num_skipped": len(trainer.skipped.reasons), "epoch": trainer.state.epoch}
    result.write(folder, folder / "metrics.json", facts | best)
    plot_curves(folder / "curves.png", table, [name for name in result.scores if "top" in name])
    plot_steps(folder / "steps.png", folder / "steps.csv")
