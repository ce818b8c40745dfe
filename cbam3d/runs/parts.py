"""Probabilities of one part of a video, or of a stream, after the other."""

import math
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from cbam3d.runs.annotate import AnnotatedVideo
from cbam3d.video.stream import TimedFrame

if TYPE_CHECKING:
    from cbam3d.runs.predictor import Predictor

_EXACT = 1e-6  # seconds, by which times may differ that are meant to be equal


def parts_of(
    predictor: "Predictor",
    frames: Iterable[TimedFrame],
    window: float,
    step: float,
    copy: AnnotatedVideo | None = None,
) -> Iterator[tuple[float, float, Tensor]]:
    """Start, end (seconds) and probabilities, (K,), of each part, as soon as its frames have come.

    Args:
        predictor: scores the parts.
        frames: of the video; it may have no end.
        window: seconds of a part. The last part is the last whole one; what is shorter than a window is one part.
        step: seconds from part to part.
        copy: is shown every frame.
    """
    seen: deque[tuple[float, np.ndarray]] = deque()  # the frames of the part that is being read
    data = predictor.config.data
    start, end, fps, count = 0.0, 0.0, 25.0, 0

    def part(stop: float) -> tuple[float, float, Tensor] | None:
        chosen = [pixels for seconds, pixels in seen if start - _EXACT <= seconds < stop - _EXACT]
        if not chosen:  # a gap
            return None
        clips = dict.fromkeys(map(tuple, predictor.clips(len(chosen), fps)))  # of a short part they are the same
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
            while seen and seen[0][0] < count * step - _EXACT:
                seen.popleft()
            if seen:  # parts within a gap would be empty
                count = max(count, math.floor((seen[0][0] - window) / step))
            start = count * step
    if count == 0 and (found := part(end)):
        yield found
