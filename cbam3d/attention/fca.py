"""FcaNet: frequency channel attention.

Qin, Zhang, Wu, Li, ICCV 2021, https://arxiv.org/abs/2012.11879

    x · σ(W2 relu(W1 z)),   z_c = mean over S of x_c · Π_axes cos(π u (i + ½) / L)

Each channel has one frequency u of the discrete cosine transform instead of the mean, which is frequency 0.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from cbam3d.attention.gate import Gate, Init, channel_mlp, expand_as, run_wide, wide
from cbam3d.attention.nd import (
    as_tuple,
    check_channels,
    check_ndim,
    check_rank,
    per_frame,
    pool_to_grid,
    spatial_axes,
)

# The paper's sixteen best of the 7x7 grid, best first: (along H, along W).
TOP16 = [(0, 0), (0, 1), (6, 0), (0, 5), (0, 2), (1, 0), (1, 2), (4, 0)]
TOP16 += [(5, 0), (1, 6), (3, 0), (0, 4), (0, 6), (0, 3), (3, 5), (2, 2)]


class FCA(Gate):
    """Frequency channel attention: SE pooled with other frequencies besides the mean.

    Args:
        channels: number of input channels C, in consecutive groups, equal if the number of frequencies divides C,
            with one frequency each; fewer channels than frequencies use the first ones.
        reduction: the hidden layer has `max(1, channels // reduction)` units.
        grid: size that the features are first pooled to; None for 7x7, for clips 1x7x7. The official networks use
            56, 28, 14 and 7 in their four stages.
        frequencies: one number per axis, below the grid's size; None for the paper's top 16, for clips with frequency 0
            along T; for larger grids they are multiplied by side // 7 along H and W, as in the official code. Others
            along T need a grid with more than one frame.
        orthonormal: scale the cosines to norm 1, as the official code does; its weights require it.
        bias: biases in both layers.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, 1, …).

    By default (see `orthonormal`) the cosines are scaled not to norm 1 but by √2 per axis with a frequency above 0, so
    that frequency 0 is the mean of the grid, and FCA with it alone is SE. This is the mean of the features if their
    sides are multiples of the grid's; otherwise the pooling windows overlap, as in the official code.

    Raises:
        ValueError: no frequency, or one outside the grid.

    Examples:
        >>> from cbam3d.attention import FCA
        >>> block = FCA(64, grid=(1, 7, 7))
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    basis: Tensor

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        grid: int | Sequence[int] | None = None,
        frequencies: Sequence[Sequence[int]] | None = None,
        bias: bool = False,
        ndim: int = 3,
        init: Init = "paper",
        orthonormal: bool = False,
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        self.grid = per_frame(7, ndim) if grid is None else as_tuple(grid, ndim)
        if frequencies is not None and not len(frequencies):
            raise ValueError("frequencies must not be empty")
        times = [max(1, side // 7) for side in self.grid[-2:]]
        top = [(0, along_h * times[0], along_w * times[1])[-ndim:] for along_h, along_w in TOP16]
        chosen = top if frequencies is None else frequencies
        for frequency in chosen:
            if len(frequency) != ndim or any(not 0 <= u < side for u, side in zip(frequency, self.grid, strict=True)):
                raise ValueError(f"frequency {tuple(frequency)} does not exist in a grid of {self.grid}")
        waves = torch.stack([_wave(frequency, self.grid) for frequency in chosen])
        waves = waves * math.prod(self.grid) ** 0.5 if orthonormal else waves  # the mean below divides by |grid|
        dealt = torch.arange(channels) * len(chosen) // channels if channels > len(chosen) else torch.arange(channels)
        self.register_buffer("basis", waves[dealt][None])  # (1, C, *grid)
        self.mlp = channel_mlp(channels, reduction, bias, self.identity_init)

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        check_channels(x, self.basis.shape[1])
        pooled = wide(pool_to_grid(x, self.grid))
        return expand_as(run_wide(self.mlp, (pooled * self.basis.to(pooled.dtype)).mean(spatial_axes(x))), x)


def _wave(frequency: Sequence[int], grid: Sequence[int]) -> Tensor:
    """Product over the axes of the cosines of one frequency, of shape `grid`."""
    wave = torch.ones(())
    for u, side in zip(frequency, grid, strict=True):
        along = torch.cos(math.pi * u * (torch.arange(side, dtype=torch.float64) + 0.5) / side)
        wave = wave[..., None] * (along if u == 0 else math.sqrt(2) * along)
    return wave.float()
