"""`cbam3d explain`."""

import logging
from typing import TYPE_CHECKING

from rich.table import Table

from cbam3d.cli.console import console, table_of
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError

if TYPE_CHECKING:
    from cbam3d.runs.explanation import Explanation


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Show where a network looks in videos or images: the maps of its attention and Grad-CAM over the frames, as a "
        "PNG sheet, a GIF and an MP4, and all maps as numbers in an NPZ file."
    )
    command = CommandParser("explain", about)
    command.add_run()
    command.add_argument("paths", nargs="+", help="files, folders, or patterns such as 'clips/*.mp4'")
    command.add_checkpoint()
    command.add_argument("--out", help="folder of the images (default: explain, in the folder of the run)")
    command.add_argument("--class", dest="target", help="class that Grad-CAM asks for (default: the most probable one)")
    command.add_argument(
        "--blocks", nargs="+", default=(), help="attention blocks to show, by pattern: 'layer4.*' (default: all)"
    )
    command.add_argument("--layer", help="module whose features Grad-CAM weighs (default: the last one with positions)")
    command.add_device()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.explanation import SUFFIXES
    from cbam3d.runs.inputs import find_files, targets_of
    from cbam3d.runs.run import open_run

    opened = open_run(given.run, trust_code=given.trust_code)
    explainer = opened.explainer(given.device, given.checkpoint, blocks=given.blocks, layer=given.layer)
    paths, failures = find_files(given.paths, opened.images), []
    targets = targets_of([*map(str, paths)], given.out or opened.folder / "explain", *SUFFIXES)
    for path, (sheet, *_) in zip(paths, targets, strict=True):
        try:
            (view,) = explainer.predictor.views(path)
        except InputError as error:  # the other files are still worth a look
            failures.append(str(error))
            logging.getLogger(__name__).warning(f"skipped {error}")
            continue
        found = explainer.explain(view, given.target)
        title = f"{path}: {found.best[0][0]} ({found.best[0][1]:.1%})"
        files = found.save(sheet.with_suffix(""), title)
        console().print(_table(found, title))
        console().print(f"{sheet.with_suffix('')}: {', '.join(file.suffix[1:] for file in files)}")
    if failures:
        raise InputError(f"explain: {len(failures)} files cannot be read, the first: {failures[0]}")


def _table(found: "Explanation", title: str) -> Table:
    rows: list[tuple[str, ...]] = [("block", "map", "size", "minimum", "mean", "maximum")]
    for block, views in found.maps.items():
        for kind, values in views.items():
            numbers = (f"{number:.3f}" for number in (values.min(), values.mean(), values.max()))
            rows.append((block, kind, " x ".join(map(str, values.shape)), *numbers))
    return table_of(rows, title=title)
