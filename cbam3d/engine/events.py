"""What happens when: class probabilities along time -> events, each a class with start, end and score."""

import csv
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from io import StringIO

import numpy as np

_EXACT = 1e-6  # seconds

Window = tuple[float, float, np.ndarray]  # start, end (seconds), probabilities (K,)


@dataclass(frozen=True)
class Event:
    """A class that holds from a time to another, in seconds; the score, 0 … 1, is its mean probability meanwhile,
    without gaps that were merged.

    Examples:
        >>> from cbam3d.engine.events import Event
        >>> event = Event("serve", start_seconds=1.2, end_seconds=2.0, score=0.9)
        >>> round(event.end_seconds - event.start_seconds, 3)
        0.8
    """

    label: str
    start_seconds: float
    end_seconds: float
    score: float


@dataclass(frozen=True)
class EventSettings:
    """How events are found.

    Args:
        threshold: probability that a class reaches within an event: one for all, or one for each class, (K,).
        keep: share of the threshold above which the event goes on (hysteresis), 0 … 1.
        smooth: seconds over which probabilities are averaged, beside what overlapping windows do.
        min_length: seconds; what is shorter is no event.
        merge: seconds; events of a class that are no further apart are one.

    Examples:
        >>> import cbam3d
        >>> from cbam3d.engine.events import EventSettings
        >>> settings = EventSettings(threshold=0.9, min_length=0.5, merge=0.2)
        >>> events = list(cbam3d.load_run("runs/mine").events("clip.mp4", settings=settings))
    """

    threshold: float | Sequence[float] = 0.5
    keep: float = 0.5
    smooth: float = 0.0
    min_length: float = 0.0
    merge: float = 0.0


def find_events(
    windows: Iterable[Window], classes: Sequence[str | None], step: float, settings: EventSettings
) -> Iterator[Event]:
    """The events of a video, each as soon as it is known to have ended.

    Args:
        windows: start, end (seconds) and probabilities, (K,), of one part of the video after the other.
        classes: K names; None for those to ignore.
        step: seconds from the start of a window to that of the next.
        settings: how events are found.

    Time is divided into steps. A step has the mean probabilities of the windows that cover it, or zeros where none
    does.
    """
    reach = round(settings.smooth / step / 2)
    steps = _smoothed(_steps(windows, step, len(classes), reach), reach)
    yield from _events(steps, classes, settings)


def _steps(windows: Iterable[Window], step: float, num_classes: int, reach: int) -> Iterator[Window]:
    """One step of time after the other; of a gap, those that smoothing mixes with others, and the rest as one."""
    covering: list[tuple[float, np.ndarray]] = []  # end and probabilities of windows
    number, last = 0, 0.0

    def known() -> Window:
        start, end = number * step, min((number + 1) * step, last) if last > number * step else (number + 1) * step
        values = [probabilities for until, probabilities in covering if until >= (start + end) / 2]
        return start, end, np.mean(values, 0) if values else np.zeros(num_classes)

    for start, end, probabilities in windows:
        coming = round(start / step)
        while number < coming and number * step < last:
            yield known()
            number += 1
        if coming - number > 2 * reach + 1:
            for _ in range(reach):
                yield known()
                number += 1
            yield number * step, (coming - reach) * step, np.zeros(num_classes)
            number = coming - reach
        while number < coming:  # windows that are still to come begin later
            yield known()
            number += 1
        covering = [one for one in covering if one[0] > start] + [(end, probabilities)]
        last = max(last, end)
    while number * step < last - _EXACT:
        yield known()
        number += 1


def _smoothed(steps: Iterable[Window], reach: int) -> Iterator[Window]:
    """Steps with the mean probabilities of those up to `reach` before and after."""
    kept: list[Window] = []
    done = 0  # of those kept

    def mean() -> Window:
        start, end, _ = kept[done]
        return start, end, np.mean([one[2] for one in kept[max(0, done - reach) : done + reach + 1]], 0)

    for one in steps:
        kept.append(one)
        if len(kept) > done + reach:
            yield mean()
            done += 1
        if done > reach:
            kept.pop(0)
            done -= 1
    while done < len(kept):
        yield mean()
        done += 1


@dataclass
class _Open:
    """An event that goes on."""

    start: float
    end: float
    values: list[float]


def _events(steps: Iterable[Window], classes: Sequence[str | None], settings: EventSettings) -> Iterator[Event]:
    high = np.broadcast_to(np.asarray(settings.threshold, float), len(classes))
    going: dict[int, _Open] = {}

    def ended(k: int) -> Iterator[Event]:
        event, name = going.pop(k), classes[k]
        long = event.end - event.start >= settings.min_length - _EXACT
        if name is not None and long and max(event.values) >= high[k]:
            yield Event(name, round(event.start, 3), round(event.end, 3), float(np.mean(event.values)))

    for start, end, probabilities in steps:
        for k, value in enumerate(probabilities.tolist()):
            on = classes[k] is not None and value >= high[k] * settings.keep
            if k in going and (start if on else end) - going[k].end > settings.merge + _EXACT:
                yield from ended(k)
            if on:
                event = going.setdefault(k, _Open(start, end, []))
                event.end = end
                event.values.append(value)
    for k in sorted(going, key=lambda k: going[k].start):
        yield from ended(k)


def _json(path: str, event: Event) -> str:
    return json.dumps({"path": path, **asdict(event)})


def _csv(path: str, event: Event) -> str:
    text = StringIO()
    times = f"{event.start_seconds:.3f}", f"{event.end_seconds:.3f}"
    csv.writer(text, lineterminator="").writerow([path, event.label, *times, f"{event.score:.4f}"])
    return text.getvalue()


def _vtt(_: str, event: Event) -> str:
    label = event.label.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    label = " ".join(label.split())  # an empty line would end it
    return f"{_clock(event.start_seconds)} --> {_clock(event.end_seconds)}\n{label} {event.score:.0%}\n"


# name -> what a file begins with, and what it has of an event of a video: lines of JSON, CSV, or subtitles that players
# show (https://www.w3.org/TR/webvtt1)
FORMATS: dict[str, tuple[str, Callable[[str, Event], str]]] = {
    "json": ("", _json),
    "csv": ("path,label,start,end,score", _csv),
    "vtt": ("WEBVTT\n", _vtt),
}


def _clock(seconds: float) -> str:
    minutes, milliseconds = divmod(round(1000 * seconds), 60_000)
    return f"{minutes // 60:02d}:{minutes % 60:02d}:{milliseconds // 1000:02d}.{milliseconds % 1000:03d}"
