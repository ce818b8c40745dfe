"""Which frames of a video belong to a span of time.

Times are in seconds from the first frame. A span holds the frames shown from its start on and before its end, so that
spans that follow each other share none.
"""

import zlib
from collections.abc import Sequence

import numpy as np

EXACT = 1e-3  # seconds, to which times in tables and containers are rounded
REORDERED = 8  # frames, at most, over which times of coding differ in order from those of showing
_REGULAR = 0.25  # frames, by which the times of a constant frame rate may be off
_PAUSE = 2.0, 20  # seconds, and times the median, by which two frames of a recording that went on are apart at most


def encode_times(times: Sequence[float], fps: float) -> bytes:
    """The times at which frames are shown, compressed; empty where the frame rate tells them.

    Args:
        times: of every frame, seconds; see `continued`.
        fps: mean frame rate; 0 where it is not known.
    """
    seen = continued(times, fps)
    if fps and (np.abs(seen * fps - np.arange(len(seen))) < _REGULAR).all():
        return b""
    return zlib.compress(seen.astype("<f4").tobytes())


def continued(times: Sequence[float], fps: float = 0.0) -> np.ndarray:
    """When the frames are shown, seconds from the first, in ascending order.

    Args:
        times: as a container has them, in the order of coding perhaps (AVI knows no other); they may begin again, as
            those of recordings that were joined: the next one then goes on, a frame after the last.
        fps: frame rate, for that frame; 0 where it is not known.
    """
    shown, begin = [np.empty(0)], 0.0
    for part in _parts(times):
        shown.append(np.sort(part) - min(part) + begin)
        begin = shown[-1][-1] + (1 / fps if fps else np.ptp(part) / max(1, len(part) - 1))
    return np.concatenate(shown)


def rate_by_times(known: float, times: Sequence[float]) -> float:
    """Frames a second as a container tells, or the mean by the times of frames, see `continued`, where these contradict
    it. Pauses of the recording do not count."""
    steps = np.concatenate([np.empty(0), *(np.diff(np.sort(part)) for part in _parts(times))])
    if len(steps):
        steps = steps[steps <= max(_PAUSE[0], _PAUSE[1] * float(np.median(steps)))]
    if not steps.any():
        return known
    rate = float(len(steps) / steps.sum())
    return known if abs(known - rate) <= 0.05 * rate else rate


def _parts(times: Sequence[float]) -> list[list[float]]:
    """Times, divided where they begin again: go back to the first, or by more than a change of order to near it."""
    parts: list[list[float]] = []
    first = last = 0.0
    for time in times:
        near = time < last - 0.5 and time < first + (last - first) / 4
        if not parts or near or (time <= first and len(parts[-1]) > REORDERED):
            parts.append([])
            first = last = time
        parts[-1].append(time)
        first, last = min(first, time), max(last, time)
    return parts


def frames_between(start: float, end: float, num_frames: int, fps: float, times: bytes = b"") -> tuple[int, int]:
    """The first frame of a span of time, and how many there are: 0 if it has none.

    Args:
        start: seconds.
        end: seconds; of frames that are shown at that time, none belongs to the span.
        num_frames: in the video.
        fps: its frame rate.
        times: of `encode_times`.
    """
    shown = np.frombuffer(zlib.decompress(times), "<f4") if times else np.arange(num_frames) / fps
    first, stop = np.searchsorted(shown, [start - EXACT, end - EXACT]).tolist()
    return first, stop - first


def end_of(num_frames: int, fps: float, times: bytes = b"") -> float:
    """When the last frame of a video has been shown, seconds."""
    if not times:
        return num_frames / fps
    shown = np.frombuffer(zlib.decompress(times), "<f4")
    return float(shown[-1] + (1 / fps if fps else np.diff(shown).mean() if len(shown) > 1 else 0))
