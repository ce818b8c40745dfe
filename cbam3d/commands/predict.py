"""What a trained network sees in files: whole videos or pictures, or windows of long videos."""

import glob
import json
import math
from dataclasses import asdict
from pathlib import Path

from PIL import Image
from rich.table import Table

from cbam3d.classifier import load_run
from cbam3d.commands.windows import Prediction, predictions
from cbam3d.console import speaker
from cbam3d.errors import InputError, counted
from cbam3d.outputs import distinct, make_folder
from cbam3d.parsing import CommandParser
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.stream import is_stream

_STREAM_WINDOW = 2.0  # seconds, where none is asked for
_LEAST_SECONDS = 0.001  # of a window and a step


def predict(arguments: list[str]) -> None:
    """Print the most probable classes of videos or pictures; with --window, of each part of a long video, of a stream
    or of what a camera sees."""
    given = parser().parse_args(arguments)
    for name in ("top", "window", "step"):
        value = getattr(given, name)
        if value is not None and not _LEAST_SECONDS <= value < math.inf:
            raise InputError(f"predict: --{name} must be above 0, got {value}")
    streams = [path for path in given.paths if is_stream(path)]
    if given.step and not given.window and not streams:
        raise InputError("predict: --step goes with --window")
    classifier = load_run(given.run, given.checkpoint, given.device)
    if classifier.images and (given.window or given.annotate or streams):
        raise InputError("predict: windows, streams and --annotate are for videos, the run was trained on pictures")
    files = find_files([path for path in given.paths if not is_stream(path)], classifier.images)
    sources = [*map(str, files), *streams]
    copies = _copies(given.annotate, sources) if given.annotate else [None] * len(sources)
    console, failures = speaker(), []
    for source, annotated in zip(sources, copies, strict=True):
        window = given.window or (_STREAM_WINDOW if source in streams else None)
        found = predictions(classifier, source, given.top, window, given.step or window, annotated)
        try:
            if given.json or source in streams:
                for prediction in found:
                    text = json.dumps(asdict(prediction)) if given.json else _line(prediction)
                    print(text, flush=True)
            else:
                console.print(_table(source, list(found)))
        except InputError as error:  # the other files are still worth a look
            failures.append(str(error))
            console.print(f"skipped {error}", style="yellow") if not given.json else None
        except KeyboardInterrupt:  # the way to end a camera
            found.close()
            break
    if failures:
        raise InputError(f"predict: {counted(len(failures), 'file')} cannot be read, the first: {failures[0]}")


def parser() -> CommandParser:
    """The options of the command."""
    command = CommandParser("predict", predict.__doc__)
    command.add_argument("run", help="folder of a run, or a checkpoint")
    command.add_argument(
        "paths", nargs="+", help="files, folders, patterns such as 'clips/*.mp4', URLs, or a camera's number"
    )
    command.add_checkpoint()
    command.add_argument("--top", type=int, default=5, help="how many classes")
    command.add_argument("--window", type=float, help="seconds; classify parts of this length (streams: default 2)")
    command.add_argument("--step", type=float, help="seconds from part to part; default: the window")
    command.add_argument("--json", action="store_true", help="a JSON object a line, in place of a table")
    command.add_argument("--annotate", metavar="DIR", help="write copies of the videos with the classes in the picture")
    command.add_argument("--device", default="cpu", help="where the network computes: cpu, cuda, mps")
    return command


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


def _copies(folder: str, sources: list[str]) -> list[Path]:
    """Where the annotated copy of each source goes.

    Raises:
        InputError: onto one of the sources, or the folder cannot be made.
    """
    stems = [f"camera{one}" if one.isdecimal() else Path(one.partition("?")[0]).stem for one in sources]
    paths = [make_folder(folder) / f"{stem}.mp4" for stem in distinct(stems)]
    originals = {Path(one).resolve() for one in sources if not is_stream(one)}
    if lost := [path for path in paths if path.resolve() in originals]:
        raise InputError(f"predict: --annotate {folder} would overwrite {lost[0]}")
    return paths


def _line(prediction: Prediction) -> str:
    classes = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
    return f"{prediction.start_seconds:.2f} … {prediction.end_seconds:.2f} s: {classes}"


def _table(name: str, found: list[Prediction]) -> Table:
    table = Table(title=name, title_justify="left", box=None, pad_edge=False)
    timed = bool(found) and found[0].start_seconds is not None
    for name in ("from", "to") if timed else ():
        table.add_column(name, justify="right")
    table.add_column("class")
    table.add_column("probability", justify="right")
    for prediction in found:
        for i, (name, probability) in enumerate(prediction.classes):
            times = (f"{prediction.start_seconds:.2f} s", f"{prediction.end_seconds:.2f} s") if timed else ()
            table.add_row(*(times if i == 0 else ("",) * len(times)), name, f"{probability:.1%}")
    return table
