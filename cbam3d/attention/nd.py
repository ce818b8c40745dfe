"""Everything that depends on rank: ndim=2 for images, ndim=3 for clips."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.bfloat16 import Conv3d

CONV: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: Conv3d}
BATCH_NORM: dict[int, type[nn.Module]] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
MAX_POOL: dict[int, type[nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
AVG_POOL: dict[int, Callable[..., Tensor]] = {2: F.avg_pool2d, 3: F.avg_pool3d}
ADAPTIVE_AVG_POOL: dict[int, Callable[..., Tensor]] = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}
CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by the number of axes
LINEAR = {2: "bilinear", 3: "trilinear"}  # modes of F.interpolate


def check_ndim(ndim: int) -> int:
    """Return `ndim`, or raise ValueError unless it is 2 (images) or 3 (clips)."""
    if ndim not in (2, 3):
        raise ValueError(f"ndim must be 2 (images) or 3 (clips), got {ndim}")
    return ndim


def check_clips(name: str, ndim: int) -> None:
    """Raise ValueError unless `ndim` is 3, for a mechanism along time."""
    if ndim != 3:
        raise ValueError(f"{name} needs clips: ndim=2 has no time axis")


def as_tuple(value: int | Sequence[int], ndim: int) -> tuple[int, ...]:
    """Return an int for all axes, or one int per axis, as a tuple of `ndim` ints."""
    if isinstance(value, int):
        return (value,) * ndim
    if len(value) != ndim:
        raise ValueError(f"expected an int or {ndim} ints for ndim={ndim}, got {tuple(value)}")
    return tuple(value)


def per_frame(size: int, ndim: int) -> tuple[int, ...]:
    """`size` along H and W, 1 along T."""
    return (1, size, size)[-ndim:]


def same_padding(kernel_size: int | Sequence[int], ndim: int, dilation: int | Sequence[int] = 1) -> tuple[int, ...]:
    """Zero padding that preserves the size; raises ValueError for an even or non-positive kernel."""
    sizes = as_tuple(kernel_size, ndim)
    if any(k < 1 or k % 2 == 0 for k in sizes):
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}")
    return tuple(k // 2 * d for k, d in zip(sizes, as_tuple(dilation, ndim), strict=True))


def check_rank(x: Tensor, ndim: int) -> None:
    """Raise ValueError unless `x` is (N, C, *spatial) with `ndim` spatial axes."""
    if x.ndim != ndim + 2:
        axes = "(N, C, H, W)" if ndim == 2 else "(N, C, T, H, W)"
        raise ValueError(f"expected {axes} for ndim={ndim}, got a tensor of shape {tuple(x.shape)}")


def check_channels(x: Tensor, channels: int) -> None:
    """Raise ValueError unless `x` has `channels` channels, as parameters would broadcast."""
    if x.shape[1] != channels:
        raise ValueError(f"expected {channels} channels, got a tensor of shape {tuple(x.shape)}")


def spatial_axes(x: Tensor) -> tuple[int, ...]:
    """The axes after (N, C); raises ValueError if there are none."""
    if x.ndim < 3:
        raise ValueError(f"expected (N, C, *spatial), got a tensor of shape {tuple(x.shape)}")
    return tuple(range(2, x.ndim))


def amax(x: Tensor, axes: Sequence[int], keepdim: bool = False) -> Tensor:
    """`x.amax(axes, keepdim)`, with a derivative that also holds in torch.compile.

    That of amax looks for values that are equal to the maximum. torch.compile computes them anew there, without their
    rounding to bfloat16, and then none may be equal: 0 / 0 (https://github.com/pytorch/pytorch/issues/186799).
    Compiled, the derivative here goes by the maximum's index, and the first of tied maxima receives all of it.
    """
    if not torch.compiler.is_compiling():
        return x.amax(list(axes), keepdim=keepdim)
    flat = x.movedim(list(axes), list(range(-len(axes), 0))).flatten(-len(axes))
    found: Tensor = _FirstMaximum.apply(flat)  # type: ignore[assignment]
    return found.view([1 if axis in axes else size for axis, size in enumerate(x.shape)]) if keepdim else found


class _FirstMaximum(torch.autograd.Function):
    """(…, L) -> (…): `max`, whose own derivative writes by index, where this one fuses with others."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        values, index = x.max(-1)
        ctx.save_for_backward(index)
        ctx.length = x.shape[-1]
        return values

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (index,) = ctx.saved_tensors
        here = torch.arange(ctx.length, device=index.device) == index[..., None]
        return torch.where(here, grads[0][..., None], 0)


def pool_to_grid(x: Tensor, grid: Sequence[int]) -> Tensor:
    """Adaptive average pooling, (N, C, *S) -> (N, C, *grid): PyTorch's, except in exports, as ONNX has none in 3D."""
    if not torch.compiler.is_exporting():
        return ADAPTIVE_AVG_POOL[len(grid)](x, list(grid))
    for axis, side in enumerate(grid, start=2):  # separable: average over T, H and W in turn
        length = x.shape[axis]
        if side is length or side == length:  # of an axis of any length nothing is asked
            continue
        starts = [i * length // side for i in range(side)]
        stops = [-(-(i + 1) * length // side) for i in range(side)]
        means = torch.zeros(length, side)
        for i, (start, stop) in enumerate(zip(starts, stops, strict=True)):
            means[start:stop, i] = 1 / (stop - start)
        x = (x.movedim(axis, -1) @ means.to(x)).movedim(-1, axis)
    return x


def windowed_mean(
    x: Tensor, window: Sequence[int], stride: Sequence[int], before: Sequence[int], after: Sequence[int]
) -> Tensor:
    """Average pooling whose windows may extend beyond the edges; padding is not counted.

    Args:
        x: (N, C, *S).
        window, stride: one int per axis.
        before, after: how far windows extend beyond the start and end of each axis.
    """
    padding = [side for pair in zip(reversed(before), reversed(after), strict=True) for side in pair]
    pool = AVG_POOL[x.ndim - 2]
    wide = at_least_float32(x)  # CPUs have no avg_pool3d for bfloat16
    sums, counts = (pool(F.pad(y, padding), window, stride) for y in (wide, torch.ones_like(wide[:1, :1])))
    return (sums / counts).to(x.dtype)


def at_least_float32(x: Tensor) -> Tensor:
    """float16 and bfloat16 as float32; other dtypes as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def as_clips(x: Tensor) -> Tensor:
    """Features of any rank as those of clips: (N, C, T) -> (N, C, T, 1, 1), (N, C, H, W) -> (N, C, 1, H, W).

    Raises:
        ValueError: features of another rank.
    """
    if x.ndim not in (3, 4, 5):
        raise ValueError(f"expected features of an image or a clip, got a tensor of shape {tuple(x.shape)}")
    return x[..., None, None] if x.ndim == 3 else x[:, :, None] if x.ndim == 4 else x
