"""ASFF: adaptively spatial feature fusion.

Liu, Huang, Wang, 2019, https://arxiv.org/abs/1911.09516

    y = sum_l α_l ⊙ r_l(x_l);   α = softmax_l(W_l r_l(x_l)), one weight a position;   r_l resizes level l
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import positive
from cbam3d.attention.nd import CONV, MAX_POOL, check_ndim, check_rank, per_frame, pool_to_grid


class ASFF(nn.Module):
    """Fuse feature maps of several sizes at one of these sizes, with weights for every position.

    Args:
        channels: of each level, from the largest map to the smallest; each level has half the height and width of the
            one before.
        level: the index of the level whose size and channels the result has.
        ndim: 2 for images, 3 for clips.

    Shapes: a list of (N, C_l, *S_l) -> (N, C_level, *S_level).

    Smaller maps pass a 1x1 convolution and are enlarged by nearest neighbours. Larger ones pass a convolution of stride
    2, before it max pooling for every further factor of 2; along T they are averaged to as many frames. It is for
    necks of detectors and takes a list: `insert_attention` has no place for it. The official code has BatchNorm and
    a leaky ReLU behind every convolution, weighs compressed levels jointly, and ends in a convolution.

    Raises:
        ValueError: fewer than two levels, or no such level.

    Examples:
        >>> from cbam3d.attention import ASFF
        >>> small, large = torch.randn(2, 64, 8, 8), torch.randn(2, 32, 16, 16)
        >>> ASFF([64, 32], level=0)([small, large]).shape
        torch.Size([2, 64, 8, 8])
    """

    def __init__(self, channels: Sequence[int], level: int, ndim: int = 2) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        positive("channels", *channels)
        if len(channels) < 2 or not 0 <= level < len(channels):
            raise ValueError(f"expected at least two levels and one of them, got {len(channels)} levels and {level}")
        self.level = level
        self.resize = nn.ModuleList(self._resize(c, channels[level], level - i) for i, c in enumerate(channels))
        self.weigh = nn.ModuleList(CONV[ndim](channels[level], 1, 1) for _ in channels)

    def _resize(self, channels: int, out_channels: int, halvings: int) -> nn.Module:
        conv = CONV[self.ndim]
        if halvings <= 0:
            return nn.Identity() if halvings == 0 else conv(channels, out_channels, 1)
        kernel, stride, padding = (per_frame(n, self.ndim) for n in (3, 2, 1))
        padding = padding if self.ndim == 2 else (0, 1, 1)
        pools = [MAX_POOL[self.ndim](kernel, stride, padding) for _ in range(halvings - 1)]
        return nn.Sequential(*pools, conv(channels, out_channels, kernel, stride=stride, padding=padding))

    def weights(self, levels: Sequence[Tensor]) -> Tensor:
        """The weights of the levels, (N, L, *S_level)."""
        return self._weights(self._resized(levels))

    def forward(self, levels: Sequence[Tensor]) -> Tensor:
        """Feature maps, from the largest to the smallest -> their fusion."""
        resized = self._resized(levels)
        return (torch.stack(resized, dim=1) * self._weights(resized)[:, :, None].to(resized[0].dtype)).sum(1)

    def _weights(self, resized: Sequence[Tensor]) -> Tensor:
        logits = [layer(x) for layer, x in zip(self.weigh, resized, strict=True)]
        return torch.cat(logits, dim=1).softmax(1)

    def _resized(self, levels: Sequence[Tensor]) -> list[Tensor]:
        if len(levels) != len(self.resize):
            raise ValueError(f"expected {len(self.resize)} feature maps, got {len(levels)}")
        for x in levels:
            check_rank(x, self.ndim)
        size = levels[self.level].shape[2:]
        return [_to_size(layer(x), size) for layer, x in zip(self.resize, levels, strict=True)]


def _to_size(x: Tensor, size: torch.Size) -> Tensor:
    """Nearest neighbours where a side is too short, means where it is too long."""
    if any(side > wanted for side, wanted in zip(x.shape[2:], size, strict=True)):
        x = pool_to_grid(x, [min(pair) for pair in zip(x.shape[2:], size, strict=True)])
    return x if x.shape[2:] == size else F.interpolate(x, size=list(size), mode="nearest")
