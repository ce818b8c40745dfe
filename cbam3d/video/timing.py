"""Which frames of a video belong to a span of time.

Times are in seconds from the first frame. A span holds the frames shown from its start on and before its end, so that
spans that follow each other share none.
"""

import zlib
from collections.abc import Sequence

import numpy as np

EXACT = 1e-3  # seconds, to which times in tables and containers are rounded
_REGULAR = 0.25  # frames, by which the times of a constant frame rate may be off


def encode_times(times: Sequence[float], fps: float) -> bytes:
    """The times at which frames are shown, compressed; empty where the frame rate tells them.

    Args:
        times: of every frame, seconds.
        fps: mean frame rate; 0 where it is not known.
    """
    seen = np.maximum.accumulate(np.asarray(times, np.float64)) if len(times) else np.empty(0)
    seen = seen - seen[:1]
    if fps and (np.abs(seen * fps - np.arange(len(seen))) < _REGULAR).all():
        return b""
    return zlib.compress(seen.astype("<f4").tobytes())


def rate_by_times(known: float, times: Sequence[float]) -> float:
    """Frames a second as a container tells, or the mean by the times of frames, seconds, where these contradict it.

    Times may be in the order of coding, and may begin again, as those of streams that were joined.
    """
    parts: list[list[float]] = []  # first and last time, and number of frames
    for time in times:
        first, last, count = parts[-1] if parts else (time, time, 0)
        if not parts or (time < last - 0.5 and time < first + (last - first) / 4):  # more than a change of order
            parts.append([time, time, 0])
            first, last, count = parts[-1]
        parts[-1] = [min(first, time), max(last, time), count + 1]
    length, steps = sum(last - first for first, last, _ in parts), sum(count - 1 for _, _, count in parts)
    if not length or abs(known - steps / length) <= 0.05 * steps / length:
        return known
    return steps / length


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
