"""Videos in a form that browsers play."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import numpy as np
from av.error import FFmpegError

from cbam3d.video.container import Deadline, VideoError, open_input, reason_of
from cbam3d.video.decode import file_rate
from cbam3d.video.encode import rate_of_file, video_writer
from cbam3d.video.stream import TimedFrame, stream_frames

_CODECS = {"mp4": ("h264", "vp9", "av1"), "webm": ("vp8", "vp9", "av1")}  # by container
_SIDE = 480  # pixels, shorter side of a copy


def playable(path: Path, target: Path, go_on: Callable[[], None] = lambda: None) -> Path:
    """A video that browsers play: the file itself, or a copy that is written to `target` (H.264 in MP4, without sound).

    Args:
        path: of the video.
        target: of the copy.
        go_on: called for every frame; what it raises ends the copying.

    Raises:
        VideoError: a file that cannot be read.
    """
    with open_input(str(path), Deadline(path, 30)) as (container, stream):
        context = stream.codec_context
        codecs = next((codecs for kind, codecs in _CODECS.items() if kind in container.format.name), ())
        if any(codec in context.name for codec in codecs) and context.pix_fmt in ("yuv420p", "yuvj420p"):
            return path
    try:
        with video_writer(target, min(Fraction(120), rate_of_file(file_rate(path) or 25))) as write:
            last = -1.0
            for frame in stream_frames(str(path)):
                go_on()
                last = max(frame.seconds, last + 0.001)  # no two frames have the same time
                write(_picture(frame), last)
    except FFmpegError as error:
        raise VideoError(path, reason_of(error)) from None
    return target


def _picture(frame: TimedFrame) -> np.ndarray:
    """Pixels, (H, W, 3), of even height and width."""
    picture = frame.scaled(min(_SIDE, *frame.size))
    height, width = (size // 2 * 2 for size in picture.shape[1:])
    return np.ascontiguousarray(picture[:, :height, :width].transpose(1, 2, 0))
