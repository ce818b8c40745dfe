"""Frames -> a video file."""

from collections.abc import Iterable
from fractions import Fraction
from itertools import chain
from pathlib import Path
from typing import cast

import av
import numpy as np

# What a codec is asked for. Without cpu-independent, x264's result depends on where the frames lie in memory.
_OPTIONS = {
    "libx264": {"crf": "18", "preset": "veryfast", "x264-params": "cpu-independent=1"},
    "mpeg4": {"qmin": "3", "qmax": "3"},
}


def write_video(
    path: Path,
    frames: Iterable[np.ndarray],
    fps: int | Fraction,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    **options: str,
) -> None:
    """Encode frames into a video file; it appears under its name only when it is complete.

    Args:
        path: the container follows from the suffix.
        frames: at least one, each uint8 (H, W, 3), RGB; an array (T, H, W, 3) will do.
        fps: frames a second.
        codec: name of an FFmpeg encoder.
        pix_fmt: pixel format of the file.
        options: of the encoder, over the ones chosen here.
    """
    frames = iter(frames)
    first = next(frames)
    unfinished = path.with_name(f".{path.name}.part{path.suffix}")
    try:
        with av.open(str(unfinished), "w") as container:
            stream = cast(av.VideoStream, container.add_stream(codec, rate=fps))
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = pix_fmt
            stream.codec_context.thread_count = 1
            stream.codec_context.options = _OPTIONS.get(codec, {}) | options
            for frame in chain([first], frames):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)
