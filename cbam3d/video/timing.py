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
