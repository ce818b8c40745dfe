"""What a trained network sees in files: whole videos or pictures, or windows of long videos."""

import glob
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

from PIL import Image
from rich.table import Table

from cbam3d.classifier import Classifier, load_run
from cbam3d.console import speaker
from cbam3d.data.listing import VIDEO_SUFFIXES
from cbam3d.errors import InputError
from cbam3d.parsing import CommandParser


@dataclass(frozen=True)
class Prediction:
    """The classes of a file, or of a part of it; times in seconds, None for the whole file."""

    path: str
    start_seconds: float | None
    end_seconds: float | None
    classes: list[tuple[str, float]]  # best first, with probabilities


def predict(arguments: list[str]) -> None:
    """Print the most probable classes of videos or pictures; with --window, of each part of a long video."""
    command = CommandParser("cbam3d predict", description=predict.__doc__)
    command.add_argument("run", help="folder of a run, or a checkpoint")
    command.add_argument("paths", nargs="+", help="files, folders, or patterns such as 'clips/*.mp4'")
    command.add_argument("--checkpoint", choices=("last", "best"), default="last", help="of a folder")
    command.add_argument("--top", type=int, default=5, help="how many classes")
    command.add_argument("--window", type=float, help="seconds; classify parts of this length")
    command.add_argument("--step", type=float, help="seconds from part to part; default: the window")
    command.add_argument("--json", action="store_true", help="a JSON object a line, in place of a table")
    command.add_argument("--device", default="cpu", help="where the network computes: cpu, cuda, mps")
    given = command.parse_args(arguments)
    for name in ("top", "window", "step"):
        value = getattr(given, name)
        if value is not None and value <= 0:
            raise InputError(f"predict: --{name} must be above 0, got {value}")
    if given.step and not given.window:
        raise InputError("predict: --step goes with --window")
    classifier = load_run(given.run, given.checkpoint, given.device)
    if given.window and classifier.images:
        raise InputError("predict: --window is for videos, the run was trained on pictures")
    console, failures = speaker(), []
    for path in find_files(given.paths, classifier.images):
        try:
            found = predictions(classifier, path, given.top, given.window, given.step or given.window)
            if given.json:
                for prediction in found:
                    print(json.dumps(asdict(prediction)), flush=True)
            else:
                console.print(_table(path, list(found)))
        except InputError as error:  # the other files are still worth a look
            failures.append(str(error))
            console.print(f"skipped {error}", style="yellow") if not given.json else None
    if failures:
        raise InputError(f"predict: {len(failures)} files cannot be read, the first: {failures[0]}")


def find_files(paths: list[str], images: bool) -> list[Path]:
    """The files that are meant: each once, those of a folder in the order of their names.

    Raises:
        InputError: a path or pattern that leads to none.
    """
    suffixes = set(Image.registered_extensions()) if images else set(VIDEO_SUFFIXES)
    found: dict[Path, None] = {}
    for text in paths:
        path = Path(text)
        if path.is_dir():
            matches = sorted(file for file in path.rglob("*") if file.suffix.lower() in suffixes)
        else:
            matches = [path] if path.is_file() else sorted(Path(name) for name in glob.glob(text, recursive=True))
        if not matches:
            raise InputError(f"{text}: no {'picture' if images else 'video'} there")
        found |= dict.fromkeys(matches)
    return list(found)


def predictions(
    classifier: Classifier, path: Path, top: int, window: float | None, step: float | None
) -> Iterator[Prediction]:
    """The prediction of a file, or with a window (seconds) of each of its parts, `step` seconds apart.

    The last part is the last whole one; a file shorter than the window is one part. Times follow from the file's
    mean frame rate.

    Raises:
        InputError: a file that cannot be read.
    """
    if window is None or step is None:
        yield Prediction(str(path), None, None, classifier(path, top))
        return
    info = classifier.probe(path)
    fps = info.fps or 25.0
    length = min(info.num_frames, max(1, round(window * fps)))
    for start in range(0, info.num_frames - length + 1, max(1, round(step * fps))):
        clips = [[start + frame for frame in clip] for clip in classifier.clips(length, fps)]
        probabilities = classifier.score(classifier.read(path, info, clips))
        yield Prediction(str(path), start / fps, (start + length) / fps, classifier.best(probabilities, top))


def _table(path: Path, found: list[Prediction]) -> Table:
    table = Table(title=str(path), title_justify="left", box=None, pad_edge=False)
    timed = found[0].start_seconds is not None
    for name in ("from", "to") if timed else ():
        table.add_column(name, justify="right")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for prediction in found:
        for i, (name, probability) in enumerate(prediction.classes):
            times = (f"{prediction.start_seconds:.2f} s", f"{prediction.end_seconds:.2f} s") if timed else ()
            table.add_row(*(times if i == 0 else ("",) * len(times)), name, f"{probability:.1%}")
    return table
