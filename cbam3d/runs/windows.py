"""What a trained network sees in a video: in the whole of it, or in one part after the other."""

import math
from collections.abc import Generator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from cbam3d.runs.annotate import AnnotatedVideo
from cbam3d.runs.predictor import Predictor, local_video
from cbam3d.video.stream import stream_frames


@dataclass(frozen=True)
class Prediction:
    """The classes of a file, or of a part of it; times in seconds, None for the whole file."""

    path: str
    start_seconds: float | None
    end_seconds: float | None
    classes: list[tuple[str, float]]  # best first, with probabilities
    labels: list[str] | None = None  # those that hold, where any number may


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
    if window is None:
        prediction = _prediction(predictor, source, None, None, predictor.probabilities(source), top)
        if annotated is not None:
            with local_video(source) as path, AnnotatedVideo(annotated) as copy:
                for timed in stream_frames(str(path)):
                    copy.see(timed)
                    copy.show(math.inf, prediction.classes)
        yield prediction
        return
    interrupted = False
    with nullcontext() if annotated is None else AnnotatedVideo(annotated) as copy:
        try:
            on_frame = None if copy is None else copy.see
            for start, end, probabilities in predictor.windows(source, window, step, on_frame):
                prediction = _prediction(predictor, source, start, end, probabilities, top)
                if copy is not None:
                    copy.show(end, prediction.classes)
                yield prediction
        except GeneratorExit:  # what was seen until now is kept
            return
        except KeyboardInterrupt:
            interrupted = True
    if interrupted:
        raise KeyboardInterrupt


def _prediction(
    predictor: Predictor, source: str | Path, start: float | None, end: float | None, probabilities: Tensor, top: int
) -> Prediction:
    labels = predictor.holding(probabilities) if predictor.apart else None
    return Prediction(str(source), start, end, predictor.best(probabilities, top), labels)
