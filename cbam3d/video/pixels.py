"""Write decoded frames into a clip: scaled, converted to RGB, and upright."""

import struct
import threading
from typing import NamedTuple

import numpy as np
from av import VideoFrame
from av.sidedata import sidedata
from av.video.plane import VideoPlane
from av.video.reformatter import Interpolation, VideoReformatter

MOST_ELONGATED = 32  # times the shorter side, the longer one
_local = threading.local()


def _unknown_kind(kind: type[sidedata.Type], value: int) -> sidedata.Type:
    """FFmpeg has kinds of side data (EXIF, stereo views) that PyAV 18 does not know, and would raise ValueError for."""
    unknown = object.__new__(kind)
    unknown._value_, unknown._name_ = value, f"UNKNOWN_{value}"
    return unknown


sidedata.Type._missing_ = classmethod(_unknown_kind)  # type: ignore[assignment, arg-type]


class Orientation(NamedTuple):
    """How stored pixels become upright: transposed, then mirrored, then turned upside down."""

    transposed: bool = False
    mirrored: bool = False
    inverted: bool = False

    def applied(self, rows: np.ndarray) -> np.ndarray:
        """A view of (H, W)."""
        rows = rows.T if self.transposed else rows
        return rows[:: -1 if self.inverted else 1, :: -1 if self.mirrored else 1]


def orientation(frame: VideoFrame) -> Orientation:
    """By the display matrix of the file, in multiples of 90°."""
    matrix = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return Orientation()
    a, b, _, c, d = struct.unpack_from("=5i", bytes(matrix))  # x' = a x + c y, y' = b x + d y
    transposed = abs(a) + abs(d) < abs(b) + abs(c)
    x, y = (c, b) if transposed else (a, d)
    return Orientation(transposed, x < 0, y < 0)


def upright_size(frame: VideoFrame) -> tuple[int, int]:
    """Height and width in pixels of the upright frame."""
    return (frame.width, frame.height) if orientation(frame).transposed else (frame.height, frame.width)


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
    upright = orientation(frame)
    if upright.transposed:
        height, width = width, height
    flags = Interpolation.BILINEAR
    if frame.width % 16 and (height, width) == (frame.height, frame.width):
        flags |= Interpolation.ACCURATE_RND  # FFmpeg's quick unscaled yuv420p -> gbrp leaves the last columns unwritten
    rgb = _reformatter("clip").reformat(frame, width, height, format="gbrp", interpolation=flags, threads=1)
    for plane, target in zip(rgb.planes, (1, 2, 0), strict=True):  # green, blue, red: planar, so rows are copied
        rows = _view(plane, height, width)
        out[target] = upright.applied(rows)


def grey_thumbnail(frame: VideoFrame, size: tuple[int, int]) -> np.ndarray:
    """The upright frame in grey, scaled to (height, width), uint8 (H, W)."""
    upright = orientation(frame)
    height, width = size[::-1] if upright.transposed else size
    small = _reformatter("thumbnail").reformat(
        frame, width, height, format="gray", interpolation=Interpolation.AREA, threads=1
    )
    (plane,) = small.planes
    return upright.applied(_view(plane, height, width)).copy()


def _view(plane: VideoPlane, height: int, width: int) -> np.ndarray:
    """A plane's pixels, uint8 (H, W), without copying; valid as long as the frame is."""
    return np.ndarray((height, width), np.uint8, memoryview(plane), strides=(plane.line_size, 1))


def _reformatter(use: str) -> VideoReformatter:
    """FFmpeg's scaler, cached per use and thread."""
    if not hasattr(_local, use):
        setattr(_local, use, VideoReformatter())
    return getattr(_local, use)
