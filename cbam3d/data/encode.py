"""Frames -> a video file."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path
from typing import cast

import av
import numpy as np

# What a codec is asked for. Without cpu-independent, x264's result depends on where the frames lie in memory.
_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"},
    "mpeg4": {"qmin": "3", "qmax": "3"},
}


class VideoWriter:
    """A video file that is written frame by frame; it appears under its name only when it is complete.

    Args:
        path: the container follows from the suffix.
        fps: frames a second.
        codec: name of an FFmpeg encoder.
        pix_fmt: pixel format of the file.
        options: of the encoder, over the ones chosen here.

    Leaving the `with` block by an exception removes what was written.
    """

    def __init__(
        self, path: Path, fps: int | Fraction, codec: str = "libx264", pix_fmt: str = "yuv420p", **options: str
    ) -> None:
        self.path, self.fps, self.codec, self.pix_fmt, self.options = path, fps, codec, pix_fmt, options
        self.unfinished = path.with_name(f".{path.name}.part{path.suffix}")
        self.stream: av.VideoStream | None = None

    def __enter__(self) -> "VideoWriter":
        self.container = av.open(str(self.unfinished), "w")
        return self

    def write(self, frame: np.ndarray) -> None:
        """Add a frame, uint8 (H, W, 3), RGB; the first one's size is that of the video."""
        if self.stream is None:
            self.stream = cast(av.VideoStream, self.container.add_stream(self.codec, rate=self.fps))
            self.stream.height, self.stream.width = frame.shape[:2]
            self.stream.pix_fmt = self.pix_fmt
            self.stream.codec_context.thread_count = 1
            self.stream.codec_context.options = _OPTIONS.get(self.codec, {}) | self.options
        self.container.mux(self.stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        try:
            if kind is None and self.stream is not None:
                self.container.mux(self.stream.encode())
            self.container.close()
            if kind is None and self.stream is not None:
                self.unfinished.replace(self.path)
        finally:
            self.unfinished.unlink(missing_ok=True)


def write_video(path: Path, frames: Iterable[np.ndarray], fps: int | Fraction, *args: str, **options: str) -> None:
    """Write frames, each uint8 (H, W, 3), as a video; the further arguments are those of `VideoWriter`."""
    with VideoWriter(path, fps, *args, **options) as writer:
        for frame in frames:
            writer.write(frame)
