"""Triplet attention.

Misra, Nalamada, Arasanipalai, Hou, WACV 2021, https://arxiv.org/abs/2010.03045

    x · mean over the axes a in (C, T, H, W) of σ(BN(conv_k([max_a x ; mean_a x]))), a map over the other axes
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, zero_
from cbam3d.attention.nd import BATCH_NORM, check_ndim, check_rank, same_padding
from cbam3d.attention.ops.gating import multiply, pool_axis
from cbam3d.attention.ops.planes import PLANE_CONV


class Triplet(Gate):
    """Triplet attention: one map per axis pooled away, three for images, four for clips, averaged.

    Args:
        channels: number of input channels C; unused.
        kernel_size: odd, along every axis of a map.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, *S).

    The official code's map over H and C (with W pooled away) is transposed, H×C: `load_weights` transposes its
    kernel. Even a clip of one frame has a fourth map, over (C, H, W), unlike an image.

    Raises:
        ValueError: an even kernel.

    Examples:
        >>> from cbam3d.attention import Triplet
        >>> block = Triplet(64, kernel_size=3)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(self, channels: int, kernel_size: int = 7, ndim: int = 3, init: Init = "paper") -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        padding = same_padding(kernel_size, ndim)

        def branch() -> nn.Sequential:
            norm = BATCH_NORM[ndim](1, momentum=0.01)  # momentum as in the official code
            if self.identity_init:
                zero_(norm)
            return nn.Sequential(PLANE_CONV[ndim](2, 1, kernel_size, padding=padding, bias=False), norm)

        self.branches = nn.ModuleList(branch() for _ in range(ndim + 1))

    def attention_maps(self, x: Tensor) -> list[Tensor]:
        """One map per axis pooled away, of size 1 there; that of C first."""
        return self._pooled(x)[1]

    def attention_map(self, x: Tensor) -> Tensor:
        return _mean(self.attention_maps(x))

    def forward(self, x: Tensor) -> Tensor:
        x, maps = self._pooled(x)
        return multiply(x, _mean(maps))

    def _pooled(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """x, as the pools return it, and the maps."""
        check_rank(x, self.ndim)
        maps = []
        for axis, branch in enumerate(self.branches, start=1):
            x, mean, maximum = pool_axis(x, axis)
            pooled = torch.stack([maximum.squeeze(axis), mean.squeeze(axis)], dim=1)
            maps.append(self.squash(branch(pooled)).movedim(1, axis))
        return x, maps


def _mean(maps: list[Tensor]) -> Tensor:
    first, *others = [one / len(maps) for one in maps]  # while they are small
    for other in others:
        first = first + other
    return first
