"""What a trained network sees in a video: in the whole of it, or in one part after the other."""

import math
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cbam3d.runs.annotate import AnnotatedVideo
from cbam3d.runs.predictor import Predictor
from cbam3d.storage import is_stored, local_copy, place_of
from cbam3d.video.container import VideoError
from cbam3d.video.stream import TimedFrame, stream_frames

_EXACT = 1e-6  # seconds, by which times may differ that are meant to be equal


@dataclass(frozen=True)
class Prediction:
    """The classes of a file, or of a part of it; times in seconds, None for the whole file."""

    path: str
    start_seconds: float | None
    end_seconds: float | None
    classes: list[tuple[str, float]]  # best first, with probabilities


def predict_windows(
    predictor: Predictor,
    source: str | Path,
    top: int,
    window: float | None,
    step: float | None,
    annotated: Path | None = None,
) -> Generator[Prediction, None, None]:
    """The prediction of a file, or with a window (seconds) of each of its parts, `step` seconds apart (None: a window).

    A step without a window is refused.

    The last part is the last whole one; what is shorter than the window is one part. Parts are read as they come, so
    the source may be a stream without an end; `annotated` names a copy with the classes in the picture, which is
    complete when the generator ends or is closed.

    Raises:
        InputError: a source that cannot be read.
    """
    if step is not None and window is None:
        raise ValueError(f"a step belongs to a window, got step={step} alone")
    step = step or window
    if is_stored(source):
        with local_copy(place_of(source)) as path:
            try:
                for found in predict_windows(predictor, path, top, window, step, annotated):
                    yield replace(found, path=str(source))
            except VideoError as error:
                raise VideoError(source, error.reason) from None
        return
    if window is None or step is None:
        prediction = Prediction(str(source), None, None, predictor(source, top))
        if annotated is not None:
            frames = stream_frames(str(source))
            first = next(frames)
            with AnnotatedVideo(annotated, first.fps) as copy:
                for timed in chain([first], frames):
                    copy.see(timed)
                    copy.show(math.inf, prediction.classes)
        yield prediction
        return
    frames = stream_frames(str(source))
    first = next(frames)
    interrupted = False
    with nullcontext() if annotated is None else AnnotatedVideo(annotated, first.fps) as copy:
        try:
            for start, end, probabilities in _parts(predictor, chain([first], frames), window, step, copy):
                classes = predictor.best(probabilities, top)
                if copy is not None:
                    copy.show(end, classes)
                yield Prediction(str(source), start, end, classes)
        except GeneratorExit:  # what was seen until now is kept
            return
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt


def _parts(
    predictor: Predictor, frames: Iterable[TimedFrame], window: float, step: float, copy: AnnotatedVideo | None
) -> Iterator[tuple[float, float, Tensor]]:
    """Start, end and probabilities of each part."""
    seen: deque[tuple[float, np.ndarray]] = deque()  # the frames of the part that is being read
    data = predictor.config.data
    start, end, fps, count = 0.0, 0.0, 25.0, 0

    def part(stop: float) -> tuple[float, float, Tensor] | None:
        chosen = [pixels for seconds, pixels in seen if start - _EXACT <= seconds < stop - _EXACT]
        if not chosen:  # a gap
            return None
        clips = predictor.clips(len(chosen), fps)
        views = [torch.from_numpy(np.stack([chosen[frame] for frame in clip], 1)) for clip in clips]
        return start, stop, predictor.score(views)

    for timed in frames:
        if copy is not None:
            copy.see(timed)
        seen.append((timed.seconds, timed.scaled(data.short_side, data.sides)))
        fps, end = timed.fps, timed.seconds + 1 / timed.fps
        while end >= start + window - _EXACT:
            if found := part(start + window):
                yield found
            count += 1
            start = count * step
            while seen and seen[0][0] < start - _EXACT:
                seen.popleft()
    if count == 0 and (found := part(end)):
        yield found
