"""Scoring what was trained: a checkpoint with its configuration, or with parts of it changed."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from cbam3d.config import Config
from cbam3d.config.bundled import find_recipe
from cbam3d.data.loader import Samples
from cbam3d.data.manifest import TABLE_NAME
from cbam3d.data.recipe import load_recipe
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.engine.events import FORMATS, Event
from cbam3d.engine.progress import no_progress
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.scoring import score
from cbam3d.errors import InputError, counted
from cbam3d.files import make_folder
from cbam3d.runs.checkpoint import Checkpoint
from cbam3d.runs.data import Source, open_source, refuse_other_draw
from cbam3d.runs.dataset import held_out_loaders
from cbam3d.runs.duplicates import refuse_trained, warn_of_unknown_training
from cbam3d.runs.event_evaluation import score_segments, why_no_segments
from cbam3d.runs.own_input import with_own_input
from cbam3d.runs.predictor import Predictor
from cbam3d.runs.processes import by_first_process, create_fabric
from cbam3d.runs.progress import show_progress
from cbam3d.runs.results import Result
from cbam3d.runs.table import refuse_changed, with_manifest_of
from cbam3d.storage import Url, exists, place_of

logger = logging.getLogger(__name__)


def evaluate(
    saved: Checkpoint, overrides: Mapping[str, Any] | None = None, split: str = "test", **options: Any
) -> Result:
    """See `Run.evaluate`; `options` are those of `Checkpoint.model`."""
    if split not in ("val", "test"):
        raise InputError(f"split must be val or test, got {split!r}")
    saved.refuse_untrusted(**options)
    folder = make_folder(saved.folder / "evaluation")
    config = with_own_input(_to_score(saved.config, saved.config.override(overrides or {})), saved.config.data)
    here, then = (place_of(one.data.root) for one in (config, saved.config))
    same_data = here == then if isinstance(here, Url) or isinstance(then, Url) else here.resolve() == then.resolve()
    has_table = (saved.folder / TABLE_NAME).is_file()  # which decides, whatever lists say
    keys = ("split", "groups", "test_fraction", *(["annotations"] if has_table else [])) if same_data else ("split",)
    if saved.drawn and not has_table and not saved.images:  # what it held out is known, whatever leads to it
        keys = ()
    changed = [key for key in keys if getattr(config.data, key) != getattr(saved.config.data, key)]
    if same_data and Path(config.data.recipe).name != Path(saved.config.data.recipe).name:
        changed.insert(0, "recipe")
    if changed:
        raise InputError(f"data.{changed[0]} is not what the run was trained with: other videos would be held out")
    fabric, config = create_fabric(config)
    own_table = same_data and config.data.manifest == saved.config.data.manifest
    if own_table and has_table and isinstance(here, Path) and not here.is_dir():
        raise InputError(f"{config.data.root}: no such folder: where the data lies now is data.root (--data.root)")
    used = with_manifest_of(saved.folder, config) if own_table else _for_table(config, saved)
    source = by_first_process(fabric, lambda: open_source(used, saved.classes, to_train=False))
    if same_data:
        refuse_other_draw(source, saved.drawn, config.data.root)
    if own_table and source.manifest is not None:
        refuse_changed(source.manifest, here)
    elif source.manifest is not None and not config.data.allow_leaks:
        refuse_trained(source.manifest, config.data.root, saved.folder)
    if source.manifest is not None and not has_table and not config.data.allow_leaks:
        _refuse_unknown(source, saved, here.name == then.name)
    if split == "val" and source.validation is source.test:
        raise InputError(f"{config.data.root}: no val split beside test")
    model = saved.model(config, **options).to(fabric.device)
    validation, test = held_out_loaders(config, source, fabric.device, fabric.global_rank, fabric.world_size)
    loader = validation if split == "val" else test
    apart = config.classes_apart
    if source.several and not apart:
        raise InputError(f"{config.data.root}: its videos may have several labels, the run was trained for one")
    with_events = _wants_events(config, loader.data)
    shown = show_progress if fabric.is_global_zero else no_progress
    found = score(fabric, model, loader, len(source.classes), config.eval.batch_size, source.images, apart, shown)
    problems = source.problems + found.problems
    result = Result.of(found, source, len(dict(problems)), saved.thresholds)
    if fabric.is_global_zero:
        events = None
        if with_events:
            predictor = Predictor(model, source.classes, config, source.images, fabric.device, saved.thresholds)
            segments, events = score_segments(predictor, loader.data, show_progress)  # type: ignore[arg-type]
            result = replace(result, scores=result.scores | segments)
        facts = {"split": split, "checkpoint": saved.path.stem, "epoch": saved.epoch, "config": config.plain()}
        _write(folder, result, events, facts)
        (folder / "skipped.csv").unlink(missing_ok=True)
        SkippedFiles(folder / "skipped.csv", config.data.max_bad_videos).add(problems)
    return result


def _refuse_unknown(source: Source, saved: Checkpoint, same_name: bool) -> None:
    """Hold the videos that are held out against those that a run held out which has no table of its videos.

    Raises:
        InputError: others of a folder of the same name, so that some were in training.
    """
    if not (others := source.held_out_beyond(saved.drawn)):
        return
    if saved.drawn and same_name:
        raise InputError(
            f"{saved.folder} did not hold out {counted(len(others), 'video')} that would be scored, the first is "
            f"{others[0]}: give what divided its videos (data.groups, data.annotations or data.manifest), or accept it "
            "with data.allow_leaks"
        )
    warn_of_unknown_training(saved.folder)


def _to_score(trained: Config, given: Config) -> Config:
    """A configuration to score with: what concerns training alone is that of the run."""
    weights = {"weights": trained.model.weights, "weights_match": trained.model.weights_match}
    config = given.override({"train": trained.plain()["train"], "model": weights})
    unused = changed_keys(given.plain(), config.plain())
    if given.train.loss is None:  # decided when the run began
        unused.pop("train.loss", None)
    if unused:
        logger.warning(f"{', '.join(unused)}: of training, and not used: scored is the network that the run trained")
    return config


def _write(folder: Path, result: Result, events: list[tuple[str, Event]] | None, facts: dict[str, Any]) -> None:
    """Write tables into the folder, and `evaluation.json` beside it."""
    (folder / "events.csv").unlink(missing_ok=True)
    if events is not None:
        with open(folder / "events.csv", "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
            start, line = FORMATS["csv"]
            file.writelines(f"{text}\n" for text in (start, *(line(*one) for one in events)))
    result.write(folder, folder.with_name("evaluation.json"), result.facts() | facts)


def _wants_events(config: Config, items: Samples) -> bool:
    wanted, problem = config.eval.events, why_no_segments(items)
    if problem and wanted:
        raise InputError(f"eval.events: {problem}")
    if wanted is None and not problem and not config.data.background:
        logger.info("set eval.events to find and score events in whole videos too: it takes every event to be listed")
    if wanted is None and problem and config.data.background:
        logger.warning(f"events are not scored: {problem}")
    return not problem and (config.data.background > 0 if wanted is None else wanted)


def _for_table(config: Config, saved: Checkpoint) -> Config:
    """Without the groups and lists that the run was trained with, where other data has a table, which has its own; and
    without the number of a split where it has none."""
    data, recipe = config.data, load_recipe(find_recipe(config.data.recipe))
    if not (recipe.lists_have_numbers or recipe.test_groups):
        config = config.override({"data.split": 1})
    if not data.manifest and not exists(place_of(data.root) / TABLE_NAME):
        return config
    unused: dict[str, Any] = {"data.groups": None}
    if data.annotations == saved.config.data.annotations and not recipe.lists_have_numbers:
        unused["data.annotations"] = None
    return config.override(unused)
