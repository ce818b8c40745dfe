"""`cbam3d explain`: pictures of where a trained network looks."""

import importlib.util
from pathlib import Path

import numpy as np
from rich.table import Table

from cbam3d.classifier import load_run
from cbam3d.commands.explanation import Explainer, Explanation
from cbam3d.commands.pictures import draw_sheet, write_moving
from cbam3d.commands.predict import find_files
from cbam3d.console import speaker
from cbam3d.errors import InputError
from cbam3d.outputs import distinct, make_folder
from cbam3d.parsing import CommandParser


def explain(arguments: list[str]) -> None:
    """Show where a network looks in videos or pictures: the maps of its attention and Grad-CAM over the frames, as a
    PNG sheet, a GIF and an MP4, and all maps as numbers in an NPZ file."""
    given = parser().parse_args(arguments)
    console = speaker()
    classifier = load_run(given.run, given.checkpoint, given.device)
    has_captum = importlib.util.find_spec("captum") is not None
    if not has_captum:
        console.print('no Grad-CAM: captum is not installed (pip install "cbam3d[explain]")', style="yellow")
    explainer = Explainer(classifier, tuple(given.blocks), given.layer, has_captum)
    run = Path(given.run)
    out = Path(given.out) if given.out else (run if run.is_dir() else run.with_suffix("")) / "explain"
    make_folder(out)
    paths, failures = find_files(given.paths, classifier.images), []
    for path, name in zip(paths, distinct(path.stem for path in paths), strict=True):
        try:
            (view,) = explainer.classifier.views(path)
        except InputError as error:  # the other files are still worth a look
            failures.append(str(error))
            console.print(f"skipped {error}", style="yellow")
            continue
        stem, found = out / name, explainer.explain(view, given.target)
        if not found.maps and found.grad_cam is None:
            raise InputError("explain: the network has no attention with maps, and there is no Grad-CAM")
        suffixes = _write(found, str(path), stem)
        console.print(_table(found, str(path)))
        console.print(f"{stem}: {', '.join(suffixes)}")
    if failures:
        raise InputError(f"explain: {len(failures)} files cannot be read, the first: {failures[0]}")


def parser() -> CommandParser:
    """The options of the command."""
    command = CommandParser("explain", explain.__doc__)
    command.add_argument("run", help="folder of a run, or a checkpoint")
    command.add_argument("paths", nargs="+", help="files, folders, or patterns such as 'clips/*.mp4'")
    command.add_checkpoint()
    command.add_argument("--out", help="folder of the pictures (default: explain, in the folder of the run)")
    command.add_argument("--class", dest="target", help="class that Grad-CAM asks for (default: the most probable one)")
    command.add_argument(
        "--blocks", nargs="+", default=(), help="attention blocks to show, by pattern: 'layer4.*' (default: all)"
    )
    command.add_argument("--layer", help="module whose features Grad-CAM weighs (default: the last one with positions)")
    command.add_argument("--device", default="cpu", help="where the network computes: cpu, cuda, mps")
    return command


def _write(found: Explanation, name: str, stem: Path) -> list[str]:
    """Write everything; the suffixes of the files."""
    best, probability = found.best[0]
    draw_sheet(found, f"{name}: {best} ({probability:.1%})", stem.with_name(stem.name + ".png"))
    moves = len(found.frames) > 1
    if moves:
        write_moving(found, stem)
    arrays = {"frames": found.frames} | {
        f"{block}/{kind}": values for block, views in found.maps.items() for kind, values in views.items()
    }
    if found.grad_cam is not None:
        arrays[f"grad_cam/{found.layer}"] = found.grad_cam
    np.savez_compressed(stem.with_name(stem.name + ".npz"), **arrays)  # pyright: ignore[reportArgumentType]
    return ["png", *(["gif", "mp4"] if moves else []), "npz"]


def _table(found: Explanation, name: str) -> Table:
    best, probability = found.best[0]
    table = Table(title=f"{name}: {best} ({probability:.1%})", title_justify="left")
    table.add_column("block")
    table.add_column("map")
    for column in ("size", "least", "mean", "greatest"):
        table.add_column(column, justify="right")
    for block, views in found.maps.items():
        for kind, values in views.items():
            size = " x ".join(map(str, values.shape))
            numbers = (f"{number:.3f}" for number in (values.min(), values.mean(), values.max()))
            table.add_row(block, kind, size, *numbers)
    return table
