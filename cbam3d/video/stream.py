"""Read frames and their timestamps from a file, a network stream or a camera; divide them into windows of time."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from av import VideoFrame

from cbam3d.storage import is_local, is_stored
from cbam3d.video.container import Deadline, VideoError, frame_rate, open_input
from cbam3d.video.decode import all_frames, file_rate
from cbam3d.video.pixels import scaled_size, upright_size, write_rgb
from cbam3d.video.timing import EXACT

_BACK_SECONDS, _BACK_FRAMES = 0.5, 8  # by which the times of frames go back in another order, at most


@dataclass(frozen=True)
class TimedFrame:
    """A decoded frame: seconds since the first one, the mean frame rate of its video, and the size (height, width) of
    the first frame, which is used for all of them."""

    frame: VideoFrame
    seconds: float
    fps: float
    size: tuple[int, int]

    def scaled(self, short_side: int, least: tuple[int, int] = (1, 1)) -> np.ndarray:
        """Pixels, uint8 (3, H, W), RGB, upright, of `scaled_size`."""
        pixels = np.empty((3, *scaled_size(*self.size, short_side, least)), np.uint8)
        write_rgb(self.frame, pixels)
        return pixels


def is_stream(source: str) -> bool:
    """Whether the source is a camera number or the URL of a stream, rather than a file."""
    return (source.isdecimal() and not Path(source).exists()) or ("://" in source and not is_stored(source))


def stream_frames(source: str, timeout_seconds: float = 30.0) -> Iterator[TimedFrame]:
    """Yield every readable frame as it arrives.

    Args:
        source: a path, a URL that FFmpeg reads (http, rtsp, …), or the number of a camera ("0").
        timeout_seconds: time limit for opening and for each frame.

    Raises:
        VideoError: nothing to open, no video in it, or a timeout.
    """
    deadline = Deadline(source, timeout_seconds)
    place, format = _camera(source) if source.isdecimal() and is_stream(source) else (source, None)
    first: tuple[float, tuple[int, int]] | None = None  # time and size
    known = file_rate(source, timeout_seconds) if is_local(source) and Path(source).is_file() else 0.0
    with open_input(place, deadline, format=format) as (container, stream):
        rate, last, jumps = known or float(frame_rate(stream) or 25), -math.inf, 0.0
        for number, frame in enumerate(all_frames(container, stream, deadline)):
            time = (number / rate if frame.time is None else frame.time) + jumps
            if time < last - max(_BACK_SECONDS, _BACK_FRAMES / rate):  # begun again, or another file follows
                jumps += last + 1 / rate - time
                time = last + 1 / rate
            time = max(time, last)  # AVI has times in the order of coding
            first, last = first or (time, upright_size(frame)), time
            yield TimedFrame(frame, time - first[0], rate, first[1])
            deadline.restart()
    if first is None:
        raise VideoError(source, "no frame can be decoded")


def stream_windows(
    frames: Iterable[TimedFrame], window: float, step: float, pixels: Callable[[TimedFrame], np.ndarray]
) -> Iterator[tuple[float, float, float, list[np.ndarray]]]:
    """Start, end (seconds), frame rate and pixels of one window after the other, as soon as its frames have come.

    Args:
        frames: may have no end.
        window: seconds. The last window is the last whole one; a video that is shorter than a window is one.
        step: seconds from window to window.
        pixels: of a frame; kept until no window needs them.
    """
    seen: deque[tuple[float, np.ndarray]] = deque()  # what the present window and later ones need
    start, end, fps, count = 0.0, 0.0, 25.0, 0

    def until(stop: float) -> list[np.ndarray]:
        return [one for seconds, one in seen if start - EXACT <= seconds < stop - EXACT]

    def whole(time: float) -> Iterator[tuple[float, float, float, list[np.ndarray]]]:
        """The windows that end by then."""
        nonlocal start, count
        while time >= start + window - EXACT:
            if chosen := until(start + window):  # else a gap
                yield start, start + window, fps, chosen
            count += 1
            while seen and seen[0][0] < count * step - EXACT:
                seen.popleft()
            if seen:  # windows within a gap would be empty
                count = max(count, math.floor((seen[0][0] - window) / step))
            start = count * step

    for timed in frames:
        seen.append((timed.seconds, pixels(timed)))
        fps, end = timed.fps, timed.seconds + 1 / timed.fps
        yield from whole(timed.seconds)
    yield from whole(end)
    if count == 0 and (chosen := until(end)):
        yield start, end, fps, chosen


def _camera(number: str) -> tuple[str, str]:
    """FFmpeg's name for a camera on this system, and the input format."""
    if sys.platform.startswith("linux"):
        return f"/dev/video{number}", "v4l2"
    if sys.platform == "darwin":
        return number, "avfoundation"
    raise VideoError(number, "cameras are read on Linux and macOS only")
