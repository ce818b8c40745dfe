"""Encode frames as a video file."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.container import OutputContainer

from cbam3d.files import atomic_write

# Encoder defaults. Without cpu-independent, x264's output depends on where the frames lie in memory.
_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"},
    "mpeg4": {"qmin": "3", "qmax": "3"},
}
_TICK = Fraction(1, 90_000)  # seconds


def rate_of_file(fps: float | Fraction) -> Fraction:
    """A frame rate as a file can hold it."""
    return max(Fraction(1, 1001), Fraction(fps).limit_denominator(1001))


@contextmanager
def video_writer(
    path: Path, fps: int | Fraction, codec: str = "libx264", pix_fmt: str = "yuv420p", **options: str
) -> Iterator[Callable[..., None]]:
    """Write a video frame by frame: yields a function that adds a frame, uint8 (H, W, 3), RGB, and shows it as many
    seconds after the first as a second argument says; without one, as the frame rate says.

    The file is created when the block ends, unless the block fails or adds no frame. All frames have the size of the
    first.

    Args:
        path: its suffix determines the container.
        fps: frames per second.
        codec: name of an FFmpeg encoder.
        pix_fmt: pixel format of the file.
        options: of the encoder; they override the defaults.
    """
    opened: list[tuple[OutputContainer, av.VideoStream]] = []

    with atomic_write(path) as unfinished:

        def write(frame: np.ndarray, seconds: float | None = None) -> None:
            if not opened:
                container = av.open(str(unfinished), "w")
                stream = cast(av.VideoStream, container.add_stream(codec, rate=fps))
                opened.append((container, stream))
                stream.height, stream.width = frame.shape[:2]
                stream.pix_fmt = pix_fmt
                stream.codec_context.thread_count = 1
                stream.codec_context.options = _OPTIONS.get(codec, {}) | options
                if seconds is not None:
                    stream.codec_context.time_base = _TICK
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            if seconds is not None:
                picture.pts, picture.time_base = round(seconds / _TICK), _TICK
            for container, stream in opened:
                container.mux(stream.encode(picture))

        try:
            yield write
            for container, stream in opened:
                container.mux(stream.encode())
        finally:
            for container, _ in opened:
                container.close()


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int | Fraction, *args: str, **options: str) -> None:
    """Write frames, each uint8 (H, W, 3), as a video; the further arguments are those of `video_writer`."""
    with video_writer(path, fps, *args, **options) as write:
        for frame in frames:
            write(frame)
