"""`cbam3d predict`."""

import json
import logging
import math
from dataclasses import asdict

from rich.table import Table

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.errors import InputError, counted
from cbam3d.runs.inputs import copies_of, find_files
from cbam3d.runs.predictor import load_run
from cbam3d.runs.windows import Prediction, predict_windows
from cbam3d.video.stream import is_stream

_STREAM_WINDOW = 2.0  # seconds, where none is asked for
_MIN_SECONDS = 0.001  # of a window and a step


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Print the most probable classes of videos or images; with --window, of each part of a long video, of a stream "
        "or of what a camera sees."
    )
    command = CommandParser("predict", about)
    command.add_run()
    command.add_argument(
        "paths", nargs="+", help="files, folders, patterns such as 'clips/*.mp4', URLs, or a camera's number"
    )
    command.add_checkpoint()
    command.add_argument("--top", type=int, default=5, help="how many classes")
    command.add_argument("--window", type=float, help="seconds; classify parts of this length (streams: default 2)")
    command.add_argument("--step", type=float, help="seconds from part to part; default: the window")
    command.add_argument("--json", action="store_true", help="a JSON object per line, in place of a table")
    command.add_argument("--annotate", metavar="DIR", help="write copies of the videos with the classes in the picture")
    command.add_device()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    for name in ("top", "window", "step"):
        value = getattr(given, name)
        if value is not None and not _MIN_SECONDS <= value < math.inf:
            raise InputError(f"predict: --{name} must be above 0, got {value}")
    streams = [path for path in given.paths if is_stream(path)]
    if given.step and not given.window and not streams:
        raise InputError("predict: --step goes with --window")
    predictor = load_run(given.run, given.checkpoint, given.device, given.trust_code)
    if predictor.images and (given.window or given.annotate or streams):
        raise InputError("predict: windows, streams and --annotate are for videos, the run was trained on images")
    files = find_files([path for path in given.paths if not is_stream(path)], predictor.images)
    sources = [*map(str, files), *streams]
    copies = copies_of(sources, given.annotate) if given.annotate else [None] * len(sources)
    failures = []
    for source, annotated in zip(sources, copies, strict=True):
        window = given.window or (_STREAM_WINDOW if source in streams else None)
        found = predict_windows(predictor, source, given.top, window, given.step or window, annotated)
        try:
            if given.json or source in streams:
                for prediction in found:
                    print(json.dumps(asdict(prediction)) if given.json else _line(prediction), flush=True)
            else:
                console().print(_table(source, list(found)))
        except InputError as error:  # the other files are still worth a look
            failures.append(str(error))
            logging.getLogger(__name__).warning(f"skipped {error}")
        except KeyboardInterrupt:  # the way to end a camera
            found.close()
            break
    if failures:
        raise InputError(f"predict: {counted(len(failures), 'file')} cannot be read, the first: {failures[0]}")


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
