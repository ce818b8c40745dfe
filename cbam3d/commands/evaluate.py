"""Scoring what was trained: one run, several against each other, or the splits of one data set."""

import math
from argparse import ArgumentTypeError
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import yaml
from rich.console import Console

from cbam3d.assemble import by_first_process, create_fabric, create_loaders, plain
from cbam3d.config import Config
from cbam3d.console import print_skipped, speaker
from cbam3d.data.recipe import load_recipe
from cbam3d.engine import evaluate as scoring
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.scores import LEAST_UNITS, Comparison, compare
from cbam3d.errors import InputError
from cbam3d.parsing import CommandParser, parse_config
from cbam3d.resources import find_recipe
from cbam3d.results import Result
from cbam3d.saved import Saved, open_saved
from cbam3d.sources import Source, open_source, refuse_changed, with_manifest_of


@dataclass(frozen=True)
class Scored:
    """A run, the configuration that it was scored with, and what was found."""

    saved: Saved
    config: Config
    result: Result


def evaluate(arguments: list[str]) -> None:
    """Score the checkpoint of a run again, with its configuration or parts of it changed; of several runs, also
    compare them on the same items, or average them over the splits that they were trained on."""
    given, _ = parser().parse_known_args(arguments)
    paths = list(takewhile(lambda argument: not argument.startswith("-"), arguments))
    if not paths:
        raise InputError("the folder of a run comes first: cbam3d evaluate runs/motion")
    runs = [open_saved(path, given.checkpoint) for path in paths]  # all of them, before the first is scored
    scored = [_score(saved, _config(saved, arguments[len(paths) :]), given.split) for saved in runs]
    if len(scored) > 1:
        console = speaker()
        for text in together(scored):
            console.print(text)


def parser(default: str | Path = "motion") -> CommandParser:
    """The options of the command that are no keys of a configuration."""
    command = CommandParser("evaluate", evaluate.__doc__, takes_keys=True)
    command.add_config(default)
    command.add_argument("runs", nargs="+", help="folders of runs, or checkpoints; they come first")
    command.add_checkpoint()
    command.add_argument("--views", type=_views, metavar="10x3", help="clips and crops: eval.num_clips, eval.num_crops")
    command.add_argument("--split", choices=("val", "test"), default="test", help="which held-out part")
    return command


def _views(text: str) -> tuple[int, int]:
    clips, x, crops = text.partition("x")
    if not (x and clips.isdecimal() and crops.isdecimal()):
        raise ArgumentTypeError(f"expected clips and crops such as 10x3, got {text!r}")
    return int(clips), int(crops)


def _config(saved: Saved, arguments: list[str]) -> Config:
    """The run's configuration, with the keys of the command line."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "config.yaml"
        path.write_text(yaml.safe_dump(saved.state["config"], sort_keys=False))
        config, _, given = parse_config(["run", *arguments], parser(path))
    if given.views is not None:
        clips, crops = given.views
        config = replace(config, eval=replace(config.eval, num_clips=clips, num_crops=crops))
    return config


def _score(saved: Saved, config: Config, split: str) -> Scored:
    """Score one run; the first process writes what it finds into the run's folder."""
    for key in ("split", "groups", "test_fraction"):
        if getattr(config.data, key) != getattr(saved.config.data, key):
            raise InputError(f"data.{key} is not what the run was trained with: other videos would be held out")
    fabric = create_fabric(config)
    console = speaker(fabric)
    same_data = Path(config.data.root).resolve() == Path(saved.config.data.root).resolve()
    own_table = same_data and config.data.manifest == saved.config.data.manifest
    used = with_manifest_of(saved.folder, config) if own_table else _for_table(config, saved)
    source = by_first_process(fabric, lambda: open_source(used, console, saved.classes))
    if own_table and source.manifest is not None:
        refuse_changed(source.manifest, Path(config.data.root), console)
    if split == "val" and source.validation is source.test:
        raise InputError(f"{config.data.root}: no val split beside test")
    model = saved.model(config).to(fabric.device)
    _, validation, test = create_loaders(config, source, fabric)
    loader = validation if split == "val" else test
    found = scoring.evaluate(fabric, model, loader, len(source.classes), config.eval.batch_size, source.images)
    scored = Scored(saved, config, Result.of(found, source))
    if fabric.is_global_zero:
        _write(scored, source, console, split)
    return scored


def _for_table(config: Config, saved: Saved) -> Config:
    """Without the groups and lists that the run was trained with, where other data has a table, which has its own."""
    data = config.data
    if not data.manifest and not (Path(data.root) / "manifest.csv").is_file():
        return config
    numbered = load_recipe(find_recipe(data.recipe)).lists_have_numbers
    if data.annotations == saved.config.data.annotations and not numbered:
        data = replace(data, annotations=None)
    return replace(config, data=replace(data, groups=None))


def _write(scored: Scored, source: Source, console: Console, split: str) -> None:
    folder, result = scored.saved.folder, scored.result
    target = folder / "evaluation"
    target.mkdir(parents=True, exist_ok=True)
    listed = target / "skipped.csv"
    listed.unlink(missing_ok=True)
    skipped = SkippedFiles(listed, scored.config.data.max_bad_videos)
    print_skipped(console, skipped.add(source.problems + result.evaluation.problems))
    console.print(result.table(str(folder), len(skipped.reasons)))
    report = result.facts() | {"num_skipped": len(skipped.reasons), "split": split}
    report |= {"checkpoint": scored.saved.path.stem, "epoch": scored.saved.state["state"]["epoch"]}
    result.write(target, folder / "evaluation.json", report | {"config": plain(scored.config)})
    console.print(f"predictions, classes and confusion are in {target}")


def together(scored: list[Scored]) -> list[str]:
    """What several runs say together: the mean over splits, or paired comparisons with the first."""
    splits = [run.config.data.split for run in scored]
    if len(set(splits)) == len(splits):
        return [_over_splits(scored, splits)]
    first, *others = scored
    lines = []
    for other in others:
        a, b = (run.result.evaluation.predictions for run in (first, other))
        if a.names != b.names or (a.labels != b.labels).any():
            raise InputError(
                f"{first.saved.folder} and {other.saved.folder} were scored on other items: no paired comparison"
            )
        found = compare(a.hits(), b.hits(), np.array(first.result.groups))
        lines.append(f"{other.saved.folder} against {first.saved.folder}: {describe(found)}")
    return lines


def _over_splits(scored: list[Scored], splits: list[int]) -> str:
    top1 = next(iter(scored[0].result.intervals))
    values = [run.result.scores[top1] for run in scored]
    each = ", ".join(f"{split}: {value:.2%}" for split, value in zip(splits, values, strict=True))
    return f"{top1}, mean over {len(splits)} splits: {np.mean(values):.2%} ({each})"


def describe(found: Comparison) -> str:
    """A comparison in words."""
    verdict = "within noise" if found.within_noise else "beyond noise"
    between = f"(95 % interval {100 * found.low:+.2f} … {100 * found.high:+.2f}), {verdict}"
    if math.isinf(found.high):
        between = f"(no interval: fewer than {LEAST_UNITS} groups)"
    only = f"right in one only: {found.only_second} and {found.only_first}, McNemar p = {found.p_value:.3g}"
    return f"{100 * found.difference:+.2f} points {between}; {only}"
