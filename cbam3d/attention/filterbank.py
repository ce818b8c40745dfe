"""DRAW's selective attention: a grid of Gaussian filters that reads a patch of an image or a clip, and writes one.

Gregor, Danihelka, Graves, Rezende, Wierstra, ICML 2015, https://arxiv.org/abs/1502.04623

    μ_i = g + (i - N/2 + ½) δ;   F_ia ∝ exp(-(a - μ_i)² / 2σ²), 1 in sum over a;   along each axis
    read(x) = γ F_y x F_xᵀ;   write(w) = (1 / γ) F_yᵀ w F_x
"""

from collections.abc import Sequence

import torch
from torch import Tensor


def filterbank(centre: Tensor, stride: Tensor, variance: Tensor, count: int, length: int) -> Tensor:
    """Gaussian filters along an axis.

    Args:
        centre: of the grid, in positions from 0 to length - 1, (N,).
        stride: distance between filters, in positions, (N,).
        variance: of each filter, (N,).
        count: of filters.
        length: positions of the axis.

    Returns: (N, count, length); each filter is 1 in sum.

    Examples:
        >>> from cbam3d.attention.filterbank import filterbank
        >>> centre, stride, variance = torch.tensor([13.5]), torch.tensor([2.0]), torch.tensor([1.0])
        >>> filterbank(centre, stride, variance, count=4, length=28).shape
        torch.Size([1, 4, 28])
    """
    offsets = torch.arange(count, device=centre.device, dtype=centre.dtype) - count / 2 + 0.5
    means = centre[:, None] + offsets * stride[:, None]
    positions = torch.arange(length, device=centre.device, dtype=centre.dtype)
    distances = (positions - means[..., None]).square()
    return (-distances / (2 * variance[:, None, None])).softmax(-1)


def read(x: Tensor, filters: Sequence[Tensor], gain: Tensor | None = None) -> Tensor:
    """A patch: (N, C, *S) -> (N, C, *counts).

    Args:
        x: image or clip.
        filters: of each axis, (N, count, length).
        gain: γ, (N,); None for 1.

    Examples:
        >>> from cbam3d.attention.filterbank import filterbank, read
        >>> one = filterbank(torch.tensor([13.5]), torch.tensor([2.0]), torch.tensor([1.0]), count=4, length=28)
        >>> read(torch.randn(1, 3, 28, 28), [one, one]).shape
        torch.Size([1, 3, 4, 4])
    """
    for axis, bank in enumerate(filters, start=2):
        x = torch.einsum("nc...a,nia->nc...i", x.movedim(axis, -1), bank.to(x.dtype)).movedim(-1, axis)
    return x if gain is None else x * _over(gain, x)


def write(patch: Tensor, filters: Sequence[Tensor], gain: Tensor | None = None) -> Tensor:
    """The picture of a patch: (N, C, *counts) -> (N, C, *S). Without gain it is the adjoint of `read`.

    Examples:
        >>> from cbam3d.attention.filterbank import filterbank, write
        >>> one = filterbank(torch.tensor([13.5]), torch.tensor([2.0]), torch.tensor([1.0]), count=4, length=28)
        >>> write(torch.randn(1, 3, 4, 4), [one, one]).shape
        torch.Size([1, 3, 28, 28])
    """
    for axis, bank in enumerate(filters, start=2):
        patch = torch.einsum("nc...i,nia->nc...a", patch.movedim(axis, -1), bank.to(patch.dtype)).movedim(-1, axis)
    return patch if gain is None else patch / _over(gain, patch)


def _over(gain: Tensor, x: Tensor) -> Tensor:
    return gain.to(x.dtype).reshape(-1, *(1,) * (x.ndim - 1))
