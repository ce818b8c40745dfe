"""Write decoded frames into a clip: scaled, converted to RGB and rotated upright."""

import threading

import numpy as np
from av import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

MOST_ELONGATED = 32  # times the shorter side, the longer one
_local = threading.local()


def quarter_turns(frame: VideoFrame) -> int:
    """Number of 90° anticlockwise rotations that make a frame upright, rounded from its rotation metadata."""
    return round(frame.rotation / 90) % 4


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width in pixels of the frame after its rotation metadata is applied."""
    return (frame.width, frame.height) if quarter_turns(frame) % 2 else (frame.height, frame.width)


def scaled_size(height: int, width: int, short_side: int, least: tuple[int, int] = (1, 1)) -> tuple[int, int]:
    """Height and width in pixels after scaling the shorter side to `short_side`, or as far beyond as is needed for at
    least so much height and width."""
    scale = max(short_side / min(height, width), least[0] / height, least[1] / width)
    return max(round(height * scale), least[0]), max(round(width * scale), least[1])


def is_elongated(size: tuple[int, int]) -> bool:
    """Whether a frame of that height and width, scaled to the usual shorter side, would fill the memory."""
    return max(size) > MOST_ELONGATED * min(size)


def write_rgb(frame: VideoFrame, out: np.ndarray) -> None:
    """Scale and convert a frame into `out`, uint8 (3, H, W), RGB, upright."""
    _, height, width = out.shape
    turns = quarter_turns(frame)
    if turns % 2:
        height, width = width, height
    flags = Interpolation.BILINEAR
    if frame.width % 16 and (height, width) == (frame.height, frame.width):
        flags |= Interpolation.ACCURATE_RND  # FFmpeg's quick unscaled yuv420p -> gbrp leaves the last columns unwritten
    rgb = _reformatter("clip").reformat(frame, width, height, format="gbrp", interpolation=flags, threads=1)
    for plane, target in zip(rgb.planes, (1, 2, 0), strict=True):  # green, blue, red: planar, so rows are copied
        rows = _view(plane, height, width)
        out[target] = np.rot90(rows, turns) if turns else rows


def grey_thumbnail(frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """The upright frame in grey, scaled to (height, width), uint8 (H, W)."""
    turns = quarter_turns(frame)
    height, width = size[::-1] if turns % 2 else size
    small = _reformatter("thumbnail").reformat(
        frame, width, height, format="gray", interpolation=Interpolation.AREA, threads=1
    )
    (plane,) = small.planes
    return np.rot90(_view(plane, height, width), turns).copy()


def _view(plane: VideoPlane, height: int, width: int) -> np.ndarray:
    """A plane's pixels, uint8 (H, W), without copying; valid as long as the frame is."""
    return np.ndarray((height, width), np.uint8, memoryview(plane), strides=(plane.line_size, 1))


def _reformatter(use: str) -> VideoReformatter:
    """FFmpeg's scaler, cached per use and thread."""
    if not hasattr(_local, use):
        setattr(_local, use, VideoReformatter())
    return getattr(_local, use)
