"""Deformable convolution.

v2, the default: Zhu, Hu, Lin, Dai, CVPR 2019, https://arxiv.org/abs/1811.11168
v1: Dai, Qi, Xiong, Li, Zhang, Hu, Wei, ICCV 2017, https://arxiv.org/abs/1703.06211

    y(p) = sum_k w_k m_k(p) x(p + p_k + Δ_k(p)),   Δ a convolution of x, m = 2σ(a convolution of x), or 1 in v1
"""

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor

from cbam3d.attention.gate import Blend, Init, positive, zero_
from cbam3d.attention.interpolation import sample
from cbam3d.attention.nd import CONV, as_tuple, at_least_float32, check_ndim, check_rank, same_padding


class DeformableConv(Blend):
    """Deformable convolution: each kernel position is moved by a learned offset, and in v2 weighted.

    Args:
        channels: number of input channels C, and of output channels.
        kernel_size: odd; an int for all axes, or one per axis.
        modulated: v2; False is v1, without weights.
        groups: so many groups of channels have offsets (and weights) of their own; divides C.
        temporal_offsets: whether offsets have a component along T.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`).

    Shapes: (N, C, *S) -> the same.

    Offsets start at 0 and weights at 1, as the plain convolution `conv`. Between positions features are interpolated
    linearly along every axis; beyond the edges they are 0. In the paper m = σ(…), which starts at ½: here 2σ(…).
    Memory grows with |S| times the kernel.

    Raises:
        ValueError: an even kernel size, or groups that do not divide C.

    Examples:
        >>> from cbam3d.attention import DeformableConv
        >>> block = DeformableConv(64, temporal_offsets=False)
        >>> block(torch.randn(1, 64, 4, 7, 7)).shape
        torch.Size([1, 64, 4, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int] = 3,
        modulated: bool = True,
        groups: int = 1,
        temporal_offsets: bool = True,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        positive("groups", groups)
        if channels % groups:
            raise ValueError(f"groups must divide the {channels} channels, got {groups}")
        self.kernel, self.groups, self.modulated = as_tuple(kernel_size, ndim), groups, modulated
        self.in_frames = ndim == 3 and not temporal_offsets
        self.axes = ndim - self.in_frames
        padding = same_padding(self.kernel, ndim)
        count = groups * torch.Size(self.kernel).numel()
        self.conv = CONV[ndim](channels, channels, self.kernel, padding=padding)
        self.offset = CONV[ndim](channels, count * self.axes, self.kernel, padding=padding)
        zero_(self.offset)
        if modulated:
            self.modulation = CONV[ndim](channels, count, self.kernel, padding=padding)
            zero_(self.modulation)

    def transform(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        size = x.shape[2:]
        offsets = at_least_float32(self.offset(x))  # places are finer than features
        offsets = offsets.unflatten(1, (self.groups, -1, self.axes)).movedim(3, -1).flatten(0, 1)  # (N·g, K, *S, axes)
        if self.in_frames:
            offsets = torch.cat([torch.zeros_like(offsets[..., :1]), offsets], dim=-1)
        places = self._places(size, offsets.device) + offsets
        values = sample(x.unflatten(1, (self.groups, -1)).flatten(0, 1), places.flatten(1, 2))
        values = values.unflatten(2, (-1, size[0]))  # (N·g, C/g, K, *S)
        if self.modulated:
            weights = 2 * torch.sigmoid(self.modulation(x)).unflatten(1, (self.groups, -1)).flatten(0, 1)
            values = values * weights[:, None].to(values.dtype)
        values = values.unflatten(0, (-1, self.groups)).flatten(1, 2)
        weight, bias = cast(Tensor, self.conv.weight), cast(Tensor, self.conv.bias)
        out = torch.einsum("nck...,ock->no...", values, weight.flatten(2).to(values.dtype))
        return out + bias.to(out.dtype).reshape(-1, *(1,) * self.ndim)

    def _places(self, size: torch.Size, device: torch.device) -> Tensor:
        """Where the kernel's positions are without offsets, in positions of the features: (K, *S, axes)."""
        kernel = [torch.arange(k, device=device) - k // 2 for k in self.kernel]
        lines = [torch.arange(n, device=device) for n in size]
        taps = torch.stack(torch.meshgrid(*kernel, indexing="ij"), dim=-1).flatten(0, -2)
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
        return taps.reshape(-1, *(1,) * self.ndim, self.ndim) + grid
