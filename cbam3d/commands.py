"""What each command does, from its arguments to its last line."""

from dataclasses import replace
from datetime import datetime
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
    plain,
)
from cbam3d.config import Config
from cbam3d.data.loader import Loader
from cbam3d.data.manifest import write_manifest
from cbam3d.engine import evaluate as scoring
from cbam3d.engine.optim import cosine_with_warmup, create_optimizer
from cbam3d.engine.report import EpochTable, SkippedFiles, plot_confusion, plot_curves, write_json
from cbam3d.engine.train import Trainer
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.resources import bundled
from cbam3d.sources import Source, open_source


def train(arguments: list[str]) -> None:
    """Train, score, and leave a run folder."""
    config, path, resume = _parse_train(arguments, "motion")
    folder = _run_folder(config, path.stem, resume)
    if resume and not any(argument.startswith("--config") for argument in arguments):
        config, _, _ = _parse_train(arguments, folder / "config.yaml")
    fabric = create_fabric(config)
    folder = fabric.broadcast(folder)
    console = _console(fabric)
    with fabric.rank_zero_first():  # renders or downloads once
        source = open_source(_with_manifest_of(folder, config) if resume else config, console)
    model = build_model(config, len(source.classes), source.images)
    train_loader, validation_loader, test_loader = create_loaders(config, source, fabric)
    if fabric.is_global_zero:
        _open_folder(folder, resume)
    fabric.barrier()
    skipped = SkippedFiles(folder / "skipped.csv", config.data.max_bad_videos, fabric.is_global_zero)
    _print_skipped(console, skipped.add(source.problems))

    t = config.train
    optimizer = create_optimizer(model, t.optimizer, t.learning_rate, t.weight_decay, t.momentum)
    steps = len(train_loader)
    scheduler = cosine_with_warmup(optimizer, t.epochs * steps, round(t.warmup_epochs * steps))
    console.print(_summary(config, source, model, folder, fabric.device))
    model, optimizer = fabric.setup(model, optimizer)

    def score(loader: Loader) -> scoring.Evaluation:
        return scoring.evaluate(fabric, model, loader, len(source.classes), config.eval.batch_size, source.images)

    trainer = Trainer(
        fabric,
        model,
        optimizer,
        scheduler,
        train_loader,
        lambda: score(validation_loader),
        folder,
        skipped,
        console,
        epochs=t.epochs,
        evaluate_every=config.eval.every_epochs,
        primary="top1" if source.images else "video_top1",
        seed=config.run.seed,
        label_smoothing=t.label_smoothing,
        clip_grad_norm=t.clip_grad_norm,
        facts={"config": plain(config), "classes": source.classes, "versions": _versions()},
    )
    if resume:
        trainer.resume()
    if fabric.is_global_zero:  # only now is it sure that this configuration fits the folder
        repeatable = replace(config, run=replace(config.run, dir=None))
        (folder / "config.yaml").write_text(yaml.safe_dump(plain(repeatable), sort_keys=False))
        if source.manifest is not None:
            write_manifest(source.manifest, folder / "manifest.csv")
    evaluation, table = trainer.fit()
    if test_loader is not validation_loader:
        evaluation = score(test_loader)
        _print_skipped(console, skipped.add(evaluation.problems))
    if fabric.is_global_zero:
        _write_scores(folder, config, source, trainer, evaluation, table)
        console.print(_score_table(evaluation))
        console.print(f"everything is in {folder}")


def _parse_train(arguments: list[str], default: str | Path) -> tuple[Config, Path, bool]:
    command = CommandParser("cbam3d train", description=train.__doc__, add_help=False)
    command.add_argument("--resume", action="store_true", help="continue the run in its folder, with its configuration")
    config, path, options = parse_config(arguments, default, command)
    return config, path, options.resume


def evaluate(arguments: list[str]) -> None:
    """Score a run's checkpoint again, with the run's configuration or parts of it changed."""
    command = CommandParser("cbam3d evaluate", description=evaluate.__doc__, add_help=False)
    command.add_argument("run", help="folder of the run, such as runs/motion; comes first")
    command.add_argument("--checkpoint", choices=("last", "best"), default="last")
    asked_for_help = {"-h", "--help"} & set(arguments)
    if not asked_for_help and (not arguments or arguments[0].startswith("-")):
        raise InputError("the folder of a run comes first: cbam3d evaluate runs/motion")
    folder = Path(arguments[0])
    if not asked_for_help and not (folder / "config.yaml").is_file():
        raise InputError(f"{folder}: no run in this folder (config.yaml is missing)")
    config, _, options = parse_config(arguments, folder / "config.yaml", command)
    name = options.checkpoint

    fabric = create_fabric(config)
    console = _console(fabric)
    state = load_tensors(folder / "checkpoints" / f"{name}.ckpt", "checkpoint")
    if not isinstance(state, dict) or not {"config", "classes", "model", "epoch"} <= state.keys():
        raise InputError(f"{folder}/checkpoints/{name}.ckpt: not a checkpoint of cbam3d train")
    for key in ("split", "groups", "test_fraction"):
        if getattr(config.data, key) != state["config"]["data"][key]:
            raise InputError(f"data.{key} is not what the run was trained with: other videos would be held out")
    same_data = Path(config.data.root).resolve() == Path(state["config"]["data"]["root"]).resolve()
    own_table = same_data and config.data.manifest == state["config"]["data"]["manifest"]
    source = open_source(_with_manifest_of(folder, config) if own_table else config, console)
    if state["classes"] != source.classes:
        raise InputError(
            f"{config.data.root} has the classes {', '.join(source.classes[:5])}, "
            f"the checkpoint was trained on {', '.join(state['classes'][:5])}"
        )
    unfilled = replace(config, model=replace(config.model, weights=None))  # the checkpoint fills it
    model = build_model(unfilled, len(source.classes), source.images)
    try:
        model.load_state_dict(state["model"])
    except RuntimeError as error:
        reason = str(error).splitlines()[1].strip()
        raise InputError(f"{folder}/checkpoints/{name}.ckpt does not fit the network: {reason}") from None
    *_, loader = create_loaders(config, source, fabric)
    result = scoring.evaluate(
        fabric, fabric.setup_module(model), loader, len(source.classes), config.eval.batch_size, source.images
    )
    if fabric.is_global_zero:
        listed = folder / "evaluation_skipped.csv"
        listed.unlink(missing_ok=True)
        skipped = SkippedFiles(listed, config.data.max_bad_videos)
        _print_skipped(console, skipped.add(source.problems + result.problems))
        console.print(_score_table(result))
        report = {**result.scores, **result.counts, "num_skipped": len(skipped.reasons)}
        report |= {"checkpoint": name, "epoch": state["epoch"]}
        write_json(folder / "evaluation.json", report | {"config": plain(config)})


def list_names(arguments: list[str]) -> None:
    """Print what can be named in a configuration."""
    console = _console()
    for title, names in (
        ("networks", cbam3d.list_models()),
        ("attention", cbam3d.list_attentions()),
        ("configurations", sorted(path.stem for path in bundled("configs").glob("*.yaml"))),
        ("recipes", sorted(path.parent.name for path in bundled("datasets").glob("*/recipe.yaml"))),
    ):
        console.print(f"{title}: {', '.join(names)}")


def _console(fabric: Fabric | None = None) -> Console:
    """Where messages go; of several processes, one speaks. Paths are no markup."""
    return Console(
        quiet=fabric is not None and not fabric.is_global_zero, soft_wrap=True, markup=False, highlight=False
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


def _print_skipped(console: Console, lines: list[str]) -> None:
    for line in lines:
        console.print(f"skipped {line}", style="yellow")


def _with_manifest_of(folder: Path, config: Config) -> Config:
    """The configuration with the table of videos that the run in `folder` has kept: the same files, the same split."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return config
    return replace(config, data=replace(config.data, manifest=str(path), groups=None))  # the table has the groups


def _summary(config: Config, source: Source, model: torch.nn.Module, folder: Path, device: torch.device) -> str:
    attention = f" with {config.model.attention}" if config.model.attention else ""
    parameters = sum(p.numel() for p in model.parameters())
    train, test = len(source.train), len(source.test)  # type: ignore[arg-type]
    validation = "" if source.validation is source.test else f"{len(source.validation):,} to validate, "  # type: ignore[arg-type]
    return (
        f"{config.model.name}{attention}, {parameters:,} parameters, on {device}; {train:,} {source.recipe.kind}s "
        f"for training, {validation}{test:,} to test, {len(source.classes)} classes; run folder {folder}"
    )


def _write_scores(
    folder: Path,
    config: Config,
    source: Source,
    trainer: Trainer,
    evaluation: scoring.Evaluation,
    table: EpochTable,
) -> None:
    best = {f"best_{trainer.primary}": trainer.best_score, "best_epoch": trainer.best_epoch}
    counts = evaluation.counts | {"num_skipped": len(trainer.skipped.reasons), "num_classes": len(source.classes)}
    write_json(folder / "metrics.json", {**evaluation.scores, **counts, "epoch": trainer.epoch, **best})
    plot_curves(table, folder / "curves.png", [name for name in evaluation.scores if "top" in name])
    plot_confusion(evaluation.confusion, source.classes, folder / "confusion.png")


def _score_table(evaluation: scoring.Evaluation) -> Table:
    counts = ", ".join(f"{count:,} {name.removeprefix('num_')}" for name, count in evaluation.counts.items())
    table = Table(title=f"held out: {counts}", title_justify="left")
    table.add_column("score")
    table.add_column("value", justify="right")
    for name, value in evaluation.scores.items():
        table.add_row(name, f"{value:.2%}" if "top" in name else f"{value:.4f}")
    return table


def _versions() -> dict[str, Any]:
    return {
        "cbam3d": cbam3d.__version__,
        "torch": str(torch.__version__),
        "saved": datetime.now().isoformat(timespec="seconds"),
    }
