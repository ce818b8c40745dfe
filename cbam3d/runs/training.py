"""A configuration -> a trained network in the folder of a run."""

import hashlib
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from importlib import import_module
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from lightning_fabric import Fabric
from torch import nn

from cbam3d.config import Config, ConfigSource, ModelConfig, load_config
from cbam3d.config.keys import keys
from cbam3d.config.reading import name_of, write_config
from cbam3d.data.manifest import TABLE_NAME, write_manifest
from cbam3d.engine.checkpoint import changed_keys, checkpoint_path
from cbam3d.engine.plots import plot_curves, plot_steps
from cbam3d.engine.progress import Progress
from cbam3d.engine.records import EpochTable, SkippedFiles
from cbam3d.engine.scoring import Evaluation
from cbam3d.engine.train import Trainer
from cbam3d.errors import InputError
from cbam3d.files import UNFINISHED, make_folder, used_by_one
from cbam3d.models.pretrained import weights_file
from cbam3d.models.repository import METRICS
from cbam3d.models.zoo import needs_import
from cbam3d.runs.advice import advice
from cbam3d.runs.checkpoint import Checkpoint, folder_of, read_checkpoint
from cbam3d.runs.data import Source, as_decided, open_source, refuse_other_draw
from cbam3d.runs.duplicates import refuse_trained, warn_of_unknown_training
from cbam3d.runs.network import GIVEN, check_names, check_network
from cbam3d.runs.own_input import run_of, with_own_input
from cbam3d.runs.processes import by_first_process, create_fabric
from cbam3d.runs.progress import show_progress
from cbam3d.runs.results import Result
from cbam3d.runs.run import Run
from cbam3d.runs.table import refuse_changed, with_manifest_of
from cbam3d.runs.trainer import create_trainer
from cbam3d.storage import place_of

logger = logging.getLogger(__name__)


def train(
    config: ConfigSource | None = None,
    *,
    run_dir: str | Path | None = None,
    resume: bool = False,
    model: nn.Module | None = None,
    progress: Progress = show_progress,
) -> Run:
    """Train and score a network; the folder of the run holds the configuration, checkpoints, tables and plots.

    Args:
        config: the name of a bundled configuration, the path of a YAML file, a `Config`, or a mapping of values by key
            (see `load_config`): {"config": "folder", "data.root": "videos", "train.epochs": 10}. None is the demo. On
            resume, a mapping without the entry "config" changes values of the run's own configuration.
        run_dir: folder of the run; None for `run.dir`, else for runs/ and the configuration's name, numbered where that
            exists.
        resume: continue the run in that folder, with the configuration that it has; the result is the same as that of a
            run that was never stopped.
        model: a network of your own to train in place of `model.name`, (N, 3, T, H, W) or (N, 3, H, W) -> (N, number of
            classes). It is trained in place, on the device of the run; parameters of `train.freeze` stay frozen. Pass
            it to `open_run` as well.
        progress: shows the progress; see `engine.progress`.

    Returns: the run. `metrics` has its scores; of several processes, the first one writes.

    Raises:
        InputError: something in the configuration, the data or the files is wrong; the text says what and where.
        Stopped: a signal (SIGTERM, Ctrl-C) or `train.max_hours` ended training; a checkpoint has been written.

    Examples:
        >>> import cbam3d
        >>> run = cbam3d.train({"config": "folder", "data.root": "videos", "train.epochs": 1}, run_dir="runs/example")
        >>> sorted(run.metrics["intervals_95"])
        ['video_mean_class_accuracy', 'video_top1', 'video_top5']
    """
    given: ConfigSource = {} if config is None else config
    placed: dict[str, Any] = {} if run_dir is None else {"run.dir": str(run_dir)}
    check_network(model)
    if model is not None:
        _refuse_unused(given)
        placed |= {"model": ModelConfig(name=GIVEN, attention=None).model_dump()}
    begun = None
    if resume:
        settings, folder = _to_resume(given, placed)
    else:
        settings, folder = load_config(given, placed), Path()
        if settings.run.dir is not None:
            _refuse_run(Path(settings.run.dir))
    check_names(settings)
    if settings.run.wandb is not None:
        _wandb()  # now, rather than after the videos have been read
    fabric, settings = create_fabric(settings, model)
    with ExitStack() as held:
        if resume:
            by_first_process(fabric, lambda: held.enter_context(used_by_one(folder)))
            logger.info(f"run folder {folder}")
            begun = read_checkpoint(checkpoint_path(folder))
            settings = _as_begun(settings, begun, whole=not isinstance(given, Mapping) or "config" in given)
            found = with_manifest_of(folder, settings)
        else:
            found = settings = with_own_input(settings)
        source = by_first_process(fabric, lambda: open_source(found, begun and begun.classes, progress))
        settings = as_decided(settings, source)
        if begun is not None:
            refuse_other_draw(source, begun.drawn, settings.data.root)
            if source.manifest is not None:
                refuse_changed(source.manifest, place_of(settings.data.root))
        else:
            _refuse_videos_of_weights(settings, source)
            folder = by_first_process(fabric, lambda: held.enter_context(_new_run(settings, name_of(given))))
            logger.info(f"run folder {folder}")
        return _train_in(folder, settings, source, fabric, begun, model, progress)


@contextmanager
def _new_run(config: Config, name: str) -> Iterator[Path]:
    """A folder for a new run, held within the block."""
    folder = new_folder(config, name)
    with used_by_one(folder):
        _refuse_run(folder)  # of another process, that has ended since
        (folder / "skipped.csv").unlink(missing_ok=True)  # of a start that failed
        yield folder


def _refuse_run(folder: Path) -> None:
    if checkpoint_path(folder).exists():
        raise InputError(f"{folder} holds a run: resume it, or give another run.dir")


def _as_begun(settings: Config, begun: Checkpoint, whole: bool) -> Config:
    """The configuration of a run that goes on, with what was decided when it began.

    Args:
        settings: as they are given now.
        begun: its checkpoint.
        whole: whether a whole configuration was given.
    """
    settings = with_own_input(settings, begun.config.data, whole)
    if settings.train.loss is None:
        settings = settings.override({"train": {"loss": begun.config.train.loss}})
    if settings.augment.flip is None:
        settings = settings.override({"augment": {"flip": begun.config.augment.flip}})
    _report_changes(begun.config, settings)
    return settings


def _refuse_videos_of_weights(config: Config, source: Source) -> None:
    """Raise InputError where videos are held out that the run was trained on whose weights are the first ones; warn
    where that run has no table of them."""
    weights = weights_file(config.model.weights or "")
    if weights is None or source.manifest is None or config.data.allow_leaks:
        return
    refuse_trained(source.manifest, config.data.root, folder := folder_of(weights))
    run = None if (folder / TABLE_NAME).is_file() else run_of(weights)
    if run is not None and not run.images and source.held_out_beyond(run.drawn):
        warn_of_unknown_training(folder)


def _train_in(
    folder: Path,
    settings: Config,
    source: Source,
    fabric: Fabric,
    begun: Checkpoint | None,
    model: nn.Module | None,
    progress: Progress,
) -> Run:
    """Train and score in a folder that is there."""
    skipped = SkippedFiles(folder / "skipped.csv", settings.data.max_bad_videos, fabric.is_global_zero)
    trainer, test_loader = create_trainer(settings, source, fabric, folder, skipped, begun, model, progress)
    if begun is not None:
        trainer.resume(begun.state)
    if fabric.is_global_zero:  # only now is it certain that this configuration fits the folder
        for left in checkpoint_path(folder).parent.glob(f".*{UNFINISHED}*"):  # by a process that was killed
            left.unlink(missing_ok=True)
        write_config(settings.override({"run.dir": None}), folder / "config.yaml")
        if source.manifest is not None:
            write_manifest(source.manifest, folder / TABLE_NAME)
    if fabric.is_global_zero and trainer.state.epoch < settings.train.epochs:
        (folder / METRICS).unlink(missing_ok=True)  # those of another network than this will be
    with _followed_by_wandb(settings, folder) if fabric.is_global_zero else nullcontext():
        validated, table = trainer.fit()
        result = _result(trainer, validated, test_loader, source)
        if fabric.is_global_zero:
            _write_scores(folder, trainer, result, table)
    if fabric.is_global_zero and (text := advice(settings, table, result, len(source.train))):
        logger.warning(text)
    fabric.barrier()  # the others may ask the run for its scores at once
    return Run(folder, settings, source.classes, source.images, model, result=result)


def _to_resume(given: ConfigSource, placed: Mapping[str, Any]) -> tuple[Config, Path]:
    """Configuration and folder of the run to resume. Values without "config" change the run's own configuration."""
    if not isinstance(given, Mapping) or "config" in given:
        settings = load_config(given, placed)
        return settings, _begun_folder(settings, name_of(given))
    where = {key: value for key, value in given.items() if key.partition(".")[0] == "run"}
    folder = _begun_folder(load_config(where, placed), name_of(given))
    settings = load_config({**given, "config": folder / "config.yaml"}, placed)
    section = given.get("model")
    named = "model.name" in given or (isinstance(section, Mapping) and "name" in section)
    if not named and needs_import(settings.model.name):
        name = settings.model.name
        raise InputError(f"{folder}: its network is the class {name}, which is code: give it as model.name to trust it")
    return settings, folder


def _report_changes(begun: Config, config: Config) -> None:
    """Report what differs from the configuration with which the resumed run began.

    Raises:
        InputError: a value that a resumed run cannot change.
    """
    fixed = {key.name for key in keys() if key.fixed}
    for key, (then, now) in changed_keys(begun.plain(), config.plain()).items():
        if key in fixed:
            raise InputError(f"{key} was {then}, is {now}: a run that has begun cannot change it")
        if key != "run.dir":
            logger.warning(f"changed since: {key} was {then}, is {now}")


def _result(trainer: Trainer, validated: Evaluation, test_loader: Iterable[Any], source: Source) -> Result:
    """The scores on the test data: those of the last epoch, unless there is validation data beside them."""
    tested, thresholds = validated, trainer.facts.get("thresholds")
    if source.validation is not source.test:
        tested = trainer.score(test_loader)
        trainer.skipped.add(tested.problems)
    elif source.several:
        logger.info("no val split beside test: every class is taken to hold from a probability of 0.5 on")
    return Result.of(tested, source, len(trainer.skipped.reasons), None if thresholds is None else np.array(thresholds))


def _wandb() -> Any:
    try:
        return import_module("wandb")
    except ImportError:
        raise InputError('run.wandb: not installed (pip install "cbam3d[wandb]")') from None


@contextmanager
def _followed_by_wandb(config: Config, folder: Path) -> Iterator[None]:
    """Let Weights & Biases follow the TensorBoard events, where it is asked for."""
    if config.run.wandb is None:
        yield
        return
    following = _wandb().init(
        project=config.run.wandb,
        name="/".join(folder.parts[-2:]),
        id=hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16],  # a resumed run goes on with its own
        dir=folder,
        config=config.plain(),
        resume="allow",
        sync_tensorboard=True,
    )
    try:
        yield
    finally:
        following.finish()


def _begun_folder(config: Config, name: str) -> Path:
    """Where the run to resume lives: the named folder, or that of the configuration's name which was
    written last.

    Raises:
        InputError: no run there.
    """
    if config.run.dir is not None:
        if not checkpoint_path(Path(config.run.dir)).exists():
            raise InputError(f"{config.run.dir}: nothing to resume (checkpoints/last.ckpt is missing)")
        return Path(config.run.dir)
    runs = [folder for folder in Path("runs").glob("*") if re.fullmatch(rf"{re.escape(name)}(-\d+)?", folder.name)]
    runs = [folder for folder in runs if checkpoint_path(folder).exists()]
    if not runs:
        raise InputError(f"runs/{name}: nothing to resume")
    return max(runs, key=lambda folder: checkpoint_path(folder).stat().st_mtime)


def _refuse_unused(given: ConfigSource) -> None:
    """Raise InputError for what is asked of a network, where one is given in place of that of `model.name`."""
    asked = dict(given) if isinstance(given, Mapping) else {}
    if isinstance(asked.get("model"), Mapping):
        asked |= {f"model.{key}": value for key, value in asked["model"].items()}
    for key in ("weights", "attention", "as_video", "head"):
        if asked.get(f"model.{key}") not in (None, "none"):
            raise InputError(f"model.{key} has no effect on a network of your own (model=…): leave it out")


def new_folder(config: Config, name: str) -> Path:
    """A folder for a new run: the one that is named, or the next number, taken by making it."""
    if config.run.dir is not None:
        folder = make_folder(config.run.dir)
    else:
        make_folder("runs")
        folder = next(folder for folder in _numbered(name) if _is_made(folder))
    make_folder(checkpoint_path(folder).parent)
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


def _write_scores(folder: Path, trainer: Trainer, result: Result, table: EpochTable) -> None:
    best = {f"best_{trainer.primary}": trainer.state.best_score, "best_epoch": trainer.state.best_epoch}
    result.write(folder, folder / METRICS, result.facts() | {"epoch": trainer.state.epoch} | best)
    names = [name for name in result.evaluation.scores if name != "loss"]
    plot_curves(folder / "curves.png", table, names, result.chance)
    plot_steps(folder / "steps.png", folder / "steps.csv")
