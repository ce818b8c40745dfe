"""A decoded frame -> its place in a clip: scaled, converted to RGB and turned upright."""

import threading

import numpy as np
from av import VideoFrame
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

_local = threading.local()


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width in pixels of the picture after its rotation metadata is applied."""
    return (frame.width, frame.height) if frame.rotation % 180 else (frame.height, frame.width)


def scaled_size(height: int, width: int, short_side: int) -> tuple[int, int]:
    """Height and width in pixels of a picture whose shorter side is scaled to `short_side`."""
    scale = short_side / min(height, width)
    return round(height * scale), round(width * scale)


def write_rgb(frame: VideoFrame, out: np.ndarray) -> None:
    """Scale and convert into `out`, uint8 (3, H, W), RGB, the picture upright."""
    _, height, width = out.shape
    if frame.rotation % 180:
        height, width = width, height
    flags = Interpolation.BILINEAR
    if frame.width % 16 and (height, width) == (frame.height, frame.width):
        flags |= Interpolation.ACCURATE_RND  # FFmpeg's quick unscaled yuv420p -> gbrp leaves the last columns unwritten
    rgb = _reformatter("clip").reformat(frame, width, height, format="gbrp", interpolation=flags, threads=1)
    for plane, target in zip(rgb.planes, (1, 2, 0), strict=True):  # green, blue, red: planar, so rows are copied
        rows = _view(plane, height, width)
        out[target] = np.rot90(rows, frame.rotation // 90) if frame.rotation % 360 else rows


def grey_thumbnail(frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """The upright picture scaled to (height, width), uint8 (H, W), without colour."""
    height, width = size[::-1] if frame.rotation % 180 else size
    small = _reformatter("thumbnail").reformat(
        frame, width, height, format="gray", interpolation=Interpolation.AREA, threads=1
    )
    (plane,) = small.planes
    return np.rot90(_view(plane, height, width), frame.rotation // 90).copy()


def _view(plane: VideoPlane, height: int, width: int) -> np.ndarray:
    """A plane's pixels, uint8 (H, W), without copying; valid as long as the frame is."""
    return np.ndarray((height, width), np.uint8, memoryview(plane), strides=(plane.line_size, 1))


def _reformatter(use: str) -> VideoReformatter:
    """FFmpeg's scaling tables, kept for each use in each thread."""
    if not hasattr(_local, use):
        setattr(_local, use, VideoReformatter())
    return getattr(_local, use)
