"""The window around every position, for mechanisms that weigh its positions one by one."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.attention.nd import as_tuple, per_frame, same_padding


def window_size(kernel_size: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """The size of a window: an int is for H and W, with one frame of a clip; or one int per axis.

    Raises:
        ValueError: a size that is even or below 1, or another number of axes.
    """
    size = per_frame(kernel_size, ndim) if isinstance(kernel_size, int) else as_tuple(kernel_size, ndim)
    same_padding(size, ndim)
    return size


def windows(x: Tensor, size: Sequence[int], beyond: str = "constant") -> Tensor:
    """The values in the window around each position, as a view: (N, C, *S) -> (N, C, *S, *size).

    Args:
        x: features.
        size: of the window, one int per axis.
        beyond: what is beyond the edges, a mode of F.pad: "constant" for 0, "replicate" for the nearest value.
    """
    padding = [side for pad in reversed(same_padding(size, len(size))) for side in (pad, pad)]
    x = F.pad(x, padding, mode=beyond)
    for axis, side in enumerate(size, start=2):
        x = x.unfold(axis, side, 1)
    return x


def inside(x: Tensor, size: Sequence[int]) -> Tensor:
    """Which positions of each window lie within the edges: bool, (*S, *size), of (N, C, *S)."""
    ones = torch.ones(1, 1, *x.shape[2:], device=x.device)
    return windows(ones, size)[0, 0] > 0
