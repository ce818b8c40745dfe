"""Coordinate attention.

Hou, Zhou, Feng, CVPR 2021, https://arxiv.org/abs/2103.02907

    for each axis a: p_a = mean over the other axes;   f = h-swish(BN(conv1x1 [p_T; p_H; p_W]));   x · Π_a σ(conv_a f_a)
"""

from typing import Literal

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, hidden_channels, zero_
from cbam3d.attention.nd import check_ndim, check_rank, spatial_axes


class Coordinate(Gate):
    """Coordinate attention: one weight per channel and position along each axis, multiplied.

    Args:
        channels: number of input channels C.
        reduction: the shared layer has `max(8, channels // reduction)` channels.
        axes: which axes have a map; None for all. Clips have one along T, too, so that a clip of one frame differs
            from an image unless axes is ("h", "w").
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, *S).

    Raises:
        ValueError: an unknown, repeated or absent axis.

    Examples:
        >>> from cbam3d.attention import Coordinate
        >>> block = Coordinate(64, axes=("h", "w"))
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 32,
        axes: tuple[Literal["t", "h", "w"], ...] | None = None,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        names = ("t", "h", "w")[-ndim:]
        chosen = names if axes is None else tuple(axes)
        if not chosen or len(set(chosen)) < len(chosen) or not set(chosen) <= set(names):
            raise ValueError(f"axes must be some of {', '.join(names)}, each once, got {chosen}")
        self.axes = tuple(2 + names.index(name) for name in chosen)
        hidden = hidden_channels(channels, reduction, 8)
        self.shared = nn.Sequential(nn.Conv1d(channels, hidden, 1), nn.BatchNorm1d(hidden), nn.Hardswish())
        self.convs = nn.ModuleList(nn.Conv1d(hidden, channels, 1) for _ in chosen)
        if self.identity_init:
            for conv in self.convs:
                zero_(conv)

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """The map of each axis, (N, C, 1, …, L, …, 1)."""
        check_rank(x, self.ndim)
        pooled = [x.mean([other for other in spatial_axes(x) if other != axis]) for axis in self.axes]
        parts = self.shared(torch.cat(pooled, 2)).split([line.shape[2] for line in pooled], 2)
        maps = []
        for axis, conv, part in zip(self.axes, self.convs, parts, strict=True):
            shape = [*x.shape[:2], *(x.shape[a] if a == axis else 1 for a in spatial_axes(x))]
            maps.append(self.squash(conv(part)).reshape(shape))
        return maps

    def attention_map(self, x: Tensor) -> Tensor:
        first, *others = self.attention_maps(x)
        for other in others:
            first = first * other
        return first

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        for one in self.attention_maps(x):
            x = x * one.to(x.dtype)
        return x
