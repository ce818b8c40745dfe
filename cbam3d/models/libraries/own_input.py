"""The input that a network's pretrained weights want."""

from typing import NamedTuple


class OwnInput(NamedTuple):
    """What is known of it; None where nothing is.

    Args:
        mean: of red, green and blue, in units of the full range.
        std: likewise, the standard deviation.
        num_frames: of a clip.
        size: in pixels, that of a square or (height, width).
    """

    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    num_frames: int | None = None
    size: int | tuple[int, int] | None = None
