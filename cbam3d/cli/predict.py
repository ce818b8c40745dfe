"""`cbam3d predict`."""

import json
import logging
import math
import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from contextlib import closing, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from rich.table import Table

from cbam3d.cli.console import console
from cbam3d.cli.parser import CommandParser
from cbam3d.engine.events import FORMATS, EventSettings
from cbam3d.errors import InputError, counted

if TYPE_CHECKING:
    from cbam3d.runs.predictor import Predictor
    from cbam3d.runs.windows import Prediction

_STREAM_WINDOW = 2.0  # seconds, where none is asked for
_OF_EVENTS = ("threshold", "keep", "smooth", "min_length", "merge")


def parser() -> CommandParser:
    """The options of the command."""
    about = (
        "Print the most probable classes of videos or images; with --window, of each part of a long video, of a stream "
        "or of what a camera sees; with --events, what happens when in them."
    )
    command = CommandParser("predict", about)
    command.add_run()
    command.add_argument(
        "paths", nargs="+", help="files, folders, patterns such as 'clips/*.mp4', URLs, or a camera's number"
    )
    command.add_checkpoint()
    command.add_argument(
        "--top", type=int, help="how many classes (default: 5, or where several files are a line each 2)"
    )
    command.add_argument("--window", type=float, help="seconds; classify parts of this length (streams: default 2)")
    command.add_argument(
        "--step", type=float, help="seconds from part to part; default: the window, or with --events a quarter"
    )
    command.add_argument("--json", action="store_true", help="a JSON object per line, in place of a table")
    command.add_argument(
        "--events", choices=FORMATS, help="find events, and write them as JSON, CSV or WebVTT subtitles"
    )
    command.add_argument(
        "--threshold", type=float, help="probability that an event reaches (default 0.5, or the run's)"
    )
    command.add_argument("--keep", type=float, help="share of it above which an event goes on (default 0.5)")
    command.add_argument("--smooth", type=float, help="seconds over which probabilities are averaged (default 0)")
    command.add_argument("--min-length", type=float, help="seconds; shorter ones are no events (default 0)")
    command.add_argument("--merge", type=float, help="seconds; events no further apart are one (default 0)")
    command.add_argument("--out", metavar="DIR", help="write the events of each file to a file in this folder")
    command.add_argument("--annotate", metavar="DIR", help="write copies of the videos with the classes in the picture")
    command.add_device()
    return command


def run(arguments: list[str]) -> None:
    """Run the command."""
    given, _ = parser().parse(arguments)
    from cbam3d.runs.inputs import find_files, targets_of
    from cbam3d.runs.predictor import MIN_SECONDS, load_run
    from cbam3d.runs.windows import predict_windows
    from cbam3d.video.stream import is_stream

    for name in ("top", "window", "step"):
        value = getattr(given, name)
        if value is not None and not MIN_SECONDS <= value < math.inf:
            raise InputError(f"predict: --{name} must be above 0, got {value}")
    streams = [path for path in given.paths if is_stream(path)]
    if given.step and not given.window and not streams and not given.events:
        raise InputError("predict: --step goes with --window")
    for name in (*_OF_EVENTS, "out"):
        if getattr(given, name) is not None and not given.events:
            raise InputError(f"predict: --{name.replace('_', '-')} goes with --events")
    if given.top and given.events:
        raise InputError("predict: --top does not go with --events")
    predictor = load_run(given.run, given.checkpoint, given.device, given.trust_code)
    if predictor.images and (given.window or given.annotate or streams):
        raise InputError("predict: windows, streams and --annotate are for videos, the run was trained on images")
    files = find_files([path for path in given.paths if not is_stream(path)], predictor.images)
    sources = [*map(str, files), *streams]
    if given.events:
        _write_events(given, predictor, sources, streams)
        return
    copies: list[Path | None] = [None] * len(sources)
    if given.annotate:
        copies = [copy for (copy,) in targets_of(sources, given.annotate, ".mp4")]
    a_line_each = len(sources) > 1 and not given.window and not given.json
    top = given.top or (2 if a_line_each else 5)

    def show(source: str, annotated: Path | None) -> None:
        window = given.window or (_STREAM_WINDOW if source in streams else None)
        step = (given.step or window) if window else None
        with closing(predict_windows(predictor, source, top, window, step, annotated)) as found:
            if given.json or source in streams:
                for prediction in found:
                    print(json.dumps(asdict(prediction)) if given.json else _line(prediction), flush=True)
            elif a_line_each:
                (whole,) = found
                console().print(f"{source}: {_classes(whole)}")
            else:
                console().print(_table(source, list(found)))

    _refuse(_show_each(sources, streams, copies, show))


def _show_each(
    sources: list[str], streams: list[str], targets: Sequence[Path | None], show: Callable[[str, Path | None], None]
) -> list[str]:
    """Show every source; returns what is wrong with those that cannot be read. Ctrl-C is the way to end a stream."""
    failures = []
    for source, target in zip(sources, targets, strict=True):
        try:
            show(source, target)
        except InputError as error:
            failures.append(str(error))
            logging.getLogger(__name__).warning(f"skipped {error}")
        except KeyboardInterrupt:
            if source not in streams:
                raise
            break
    return failures


def _refuse(failures: list[str]) -> None:
    if failures:
        raise InputError(f"predict: {counted(len(failures), 'file')} cannot be read, the first: {failures[0]}")


def _settings(given: Namespace, predictor: "Predictor") -> EventSettings:
    """How events are found, as asked for."""
    for name in ("threshold", "keep"):
        value = getattr(given, name)
        if value is not None and not 0 < value <= 1:
            raise InputError(f"predict: --{name} must be above 0 and at most 1, got {value}")
    for name in ("smooth", "min_length", "merge"):
        value = getattr(given, name)
        if value is not None and not 0 <= value < math.inf:
            raise InputError(f"predict: --{name.replace('_', '-')} must be at least 0, got {value}")
    asked = {name: value for name in _OF_EVENTS if (value := getattr(given, name)) is not None}
    return EventSettings(**{"threshold": predictor.thresholds.tolist(), **asked})


def _write_events(given: Namespace, predictor: "Predictor", sources: list[str], streams: list[str]) -> None:
    from cbam3d.runs.inputs import targets_of

    if given.annotate or given.json:
        raise InputError("predict: --events goes with neither --annotate nor --json")
    settings, window = _settings(given, predictor), given.window
    if given.events == "vtt" and len(sources) > 1 and not given.out:
        raise InputError("predict: subtitles are of one video: name --out, a folder for those of several")
    targets: list[Path | None] = [None] * len(sources)
    if given.out:
        targets = [target for (target,) in targets_of(sources, given.out, f".{given.events}")]

    start, line = FORMATS[given.events]
    if start and not given.out:
        print(start, flush=True)

    def show(source: str, target: Path | None) -> None:
        events = predictor.events(source, window=window, step=given.step, settings=settings)
        if source not in streams:  # all of them first: a file that cannot be read leaves no file of events
            events = iter(sorted(events, key=lambda event: event.start_seconds))
        with nullcontext(sys.stdout) if target is None else _opened(target) as file:
            if start and target is not None:
                print(start, file=file, flush=True)
            for event in events:
                print(line(source, event), file=file, flush=True)

    failures = _show_each(sources, streams, targets, show)
    if given.out:
        console(stderr=True).print(f"events are in {given.out}")
    _refuse(failures)


def _opened(path: Path) -> TextIO:
    try:
        return open(path, "w", encoding="utf-8", errors="surrogateescape")
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from None


def _line(prediction: "Prediction") -> str:
    return f"{prediction.start_seconds:.2f} … {prediction.end_seconds:.2f} s: {_classes(prediction)}"


def _classes(prediction: "Prediction") -> str:
    """The probable classes; where there may be several, those that hold, or else that none does, come first."""
    found = ", ".join(f"{name} {probability:.1%}" for name, probability in prediction.classes)
    return found if prediction.labels is None else f"{' and '.join(prediction.labels) or 'none'} ({found})"


def _table(name: str, found: "list[Prediction]") -> Table:
    table = Table(title=name, title_justify="left", box=None, pad_edge=False)
    timed = bool(found) and found[0].start_seconds is not None
    several = bool(found) and found[0].labels is not None
    for name in ("from", "to") if timed else ():
        table.add_column(name, justify="right")
    table.add_column("class")
    table.add_column("probability", justify="right")
    if several:
        table.add_column("holds")
    for prediction in found:
        for i, (name, probability) in enumerate(prediction.classes):
            times = (f"{prediction.start_seconds:.2f} s", f"{prediction.end_seconds:.2f} s") if timed else ()
            holds = ("yes" if name in (prediction.labels or ()) else "",) if several else ()
            table.add_row(*(times if i == 0 else ("",) * len(times)), name, f"{probability:.1%}", *holds)
    return table
