"""`cbam3d evaluate`."""

import math
from argparse import ArgumentTypeError
from typing import TYPE_CHECKING

from cbam3d.cli.console import console, table_of
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError, counted

if TYPE_CHECKING:
    from cbam3d.engine.scores import PairedComparison
    from cbam3d.runs.results import Result


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Score the checkpoint of a run again, with its configuration or parts of it changed; of several runs, also "
        "compare them on the same items, or average them over the splits that they were trained on."
    )
    command = CommandParser("evaluate", about)
    command.add_argument("runs", nargs="+", help="folders of runs, or checkpoints; they come first")
    command.add_how()
    command.add_argument("--config", metavar="FILE", help="configuration to score with, in place of the run's own")
    command.add_checkpoint()
    command.add_argument("--views", type=_views, metavar="10x3", help="clips and crops: eval.num_clips, eval.num_crops")
    command.add_argument("--split", choices=("val", "test"), default="test", help="which held-out part")
    command.add_keys()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, values = parser().parse(arguments)
    from cbam3d.config import load_config
    from cbam3d.runs.results import compare_runs, mean_over_splits
    from cbam3d.runs.run import open_run

    if given.views:
        values = {"eval.num_clips": given.views[0], "eval.num_crops": given.views[1], **values}
    if given.config:
        values = {**load_config(given.config).plain(), **values}
    runs = [open_run(path, trust_code=given.trust_code) for path in given.runs]  # all of them, before one is scored
    splits, results = [], []
    for one in runs:
        result = one.evaluate(values, checkpoint=given.checkpoint, split=given.split)
        show_result(result, str(one.folder))
        console().print(f"predictions, classes and confusion are in {one.folder / 'evaluation'}")
        splits.append(one.config.override(values).data.split)
        results.append(result)
    if len(runs) > 1 and len(set(splits)) == len(splits):
        mean = mean_over_splits(list(zip(splits, results, strict=True)))
        each = ", ".join(f"{split}: {value:.2%}" for split, value in mean.values.items())
        console().print(f"{mean.score}, mean over {len(splits)} splits: {mean.mean:.2%} ({each})")
        return
    for one, result in list(zip(runs, results, strict=True))[1:]:
        try:
            found = compare_runs(results[0], result)
        except InputError as error:
            raise InputError(f"{runs[0].folder} and {one.folder}: {error}") from None
        score = next(iter(result.intervals))  # accuracy, or mean average precision
        console().print(f"{one.folder} against {runs[0].folder}, {score}: {in_words(found)}")


def _views(text: str) -> tuple[int, int]:
    clips, x, crops = text.partition("x")
    if not (x and clips.isdecimal() and crops.isdecimal()):
        raise ArgumentTypeError(f"expected clips and crops such as 10x3, got {text!r}")
    return int(clips), int(crops)


def show_result(result: "Result", title: str) -> None:
    """Show scores with their intervals."""
    from cbam3d.engine.scores import MIN_UNITS

    counts = ", ".join(f"{n:,} {name.removeprefix('num_')}" for name, n in result.counts.items())
    items, groups = len(result.groups), len(set(result.groups))
    caption = f"95 % intervals by bootstrap over {f'{groups:,} groups' if groups < items else 'items'}"
    if not result.bounded:
        units = counted(groups, "group") if groups < items else counted(items, "item")
        caption = f"no intervals: {units}, at least {MIN_UNITS} are needed"
    if result.uneven:
        caption += f"; {result.uneven}: {result.leading} counts the classes alike"
    caption = f"chance: {result.chance:.2%}; {caption}"
    rows = [("score", "value", "95 % interval")]
    for name, value in {result.leading: result.scores[result.leading], **result.scores}.items():
        low, high = result.bounded.get(name, (None, None))
        between = "" if low is None else f"{low:.2%} … {high:.2%}"
        rows.append((name, f"{value:.4f}" if name == "loss" else f"{value:.2%}", between))
    console().print(table_of(rows, title=f"{title}: {counts}", caption=caption))


def in_words(found: "PairedComparison") -> str:
    """A comparison of two runs in one line."""
    from cbam3d.engine.scores import MIN_UNITS

    verdict = "within noise" if found.within_noise else "beyond what other videos change; other seeds may reverse it"
    between = f"(95 % interval {100 * found.low:+.2f} … {100 * found.high:+.2f}), {verdict}"
    if math.isinf(found.high):
        between = f"(no interval: fewer than {MIN_UNITS} groups)"
    only = (
        f"; right in one only: {found.only_second} and {found.only_first}"
        if found.only_first + found.only_second
        else ""
    )
    p_value = "" if found.p_value is None else f", McNemar p = {found.p_value:.3g}"
    return f"{100 * found.difference:+.2f} points {between}{only}{p_value}"
