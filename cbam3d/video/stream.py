"""Read frames and their timestamps from a file, a network stream or a camera; divide them into windows of time."""

import math
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from pathlib import Path

import numpy as np
from av import VideoFrame

from cbam3d.storage import is_local, is_stored
from cbam3d.video.container import Deadline, VideoError, frame_rate, open_input
from cbam3d.video.decode import all_frames, file_rate
from cbam3d.video.pixels import scaled_size, upright_size, write_rgb
from cbam3d.video.timing import EXACT, REORDERED


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
    known = file_rate(source) if is_local(source) and Path(source).is_file() else 0.0
    with open_input(place, deadline, format=format) as (container, stream):
        rate = known or float(frame_rate(stream) or 25)
        waits = REORDERED if container.format.name == "avi" else 0  # it has times in the order of coding
        for frame, time in _going_on(all_frames(container, stream, deadline), rate, waits):
            first = first or (time, upright_size(frame))
            yield TimedFrame(frame, time - first[0], rate, first[1])
            deadline.restart()
    if first is None:
        raise VideoError(source, "no frame can be decoded")


def _going_on(frames: Iterable[VideoFrame], rate: float, waits: int) -> Iterator[tuple[VideoFrame, float]]:
    """Frames with times that never go back. Where a stream begins again, or another file follows, time goes on.

    Args:
        frames: in the order in which they are shown.
        rate: a second.
        waits: for so many frames before each, of which one may have its time.
    """
    waiting: deque[VideoFrame] = deque()
    times: list[float] = []  # of those, as a heap
    first, last, count, jumps = math.inf, -math.inf, 0, 0.0

    def ready(most: int) -> Iterator[tuple[VideoFrame, float]]:
        nonlocal last
        while len(waiting) > most:
            last = max(last, heappop(times))
            yield waiting.popleft(), last

    for number, frame in enumerate(frames):
        time = (number / rate if frame.time is None else frame.time) + jumps
        latest = max(last, *times, -math.inf)
        if time < latest - max(0.5, REORDERED / rate) or (time <= first and count > REORDERED):
            yield from ready(0)
            jumps += last + 1 / rate - time
            first, time, count = math.inf, last + 1 / rate, 0
        first, count = min(first, time), count + 1
        waiting.append(frame)
        heappush(times, time)
        yield from ready(waits)
    yield from ready(0)


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
