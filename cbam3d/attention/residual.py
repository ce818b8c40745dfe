"""Residual attention: a mask from a bottom-up, top-down branch.

Wang, Jiang, Qian, Yang, Li, Zhang, Wang, Tang, CVPR 2017, https://arxiv.org/abs/1704.06904

    x · (1 + σ(mask(x)));   mask: max pooling and residual units down, interpolation and residual units up
"""

from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Gate, Init, hidden_channels, positive, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, LINEAR, MAX_POOL, check_ndim, check_rank, per_frame, same_padding


class ResidualAttention(Gate):
    """Residual attention: one weight per channel and position, from a small hourglass; `x` is the trunk.

    Args:
        channels: number of input channels C.
        depth: how many times the mask branch halves height and width (never the number of frames).
        reduction: the residual units have `max(1, channels // reduction)` hidden channels.
        ndim: 2 for images, 3 for clips.
        align_corners: of the interpolation; True in the official code (Caffe's Interp).
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, *S), in (1, 2), or (0, 2) with init="identity".

    The paper has more units at each resolution, and a trunk of two; here the trunk is the preceding layers. In clips
    the kernels span three frames. Not to be confused with class-specific residual attention (`CSRA`).

    Raises:
        ValueError: depth below 1.

    Examples:
        >>> from cbam3d.attention import ResidualAttention
        >>> block = ResidualAttention(64, depth=2)
        >>> block(torch.randn(2, 64, 4, 16, 16)).shape
        torch.Size([2, 64, 4, 16, 16])
    """

    base = 1.0

    def __init__(
        self,
        channels: int,
        depth: int = 1,
        reduction: int = 4,
        ndim: int = 3,
        init: Init = "paper",
        align_corners: bool = False,
    ) -> None:
        super().__init__(init)
        self.align_corners = align_corners
        self.ndim = check_ndim(ndim)
        positive("depth", depth)
        hidden = hidden_channels(channels, reduction)
        window = per_frame(3, ndim)
        self.pool = MAX_POOL[ndim](window, per_frame(2, ndim), same_padding(window, ndim))
        self.down = nn.ModuleList(_Unit(channels, hidden, ndim) for _ in range(depth))
        self.skip = nn.ModuleList(_Unit(channels, hidden, ndim) for _ in range(depth - 1))
        self.up = nn.ModuleList(_Unit(channels, hidden, ndim) for _ in range(depth))
        norm, conv = BATCH_NORM[ndim], CONV[ndim]
        last = conv(channels, channels, 1)
        if self.identity_init:
            zero_(last)
        self.last = nn.Sequential(
            norm(channels), nn.ReLU(), conv(channels, channels, 1, bias=False), norm(channels), nn.ReLU(), last
        )

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        sizes, kept = [], []
        for i, unit in enumerate(self.down):
            sizes.append(x.shape[2:])
            x = unit(self.pool(x))
            if i < len(self.skip):
                kept.append(self.skip[i](x))
        for unit in self.up:
            x = F.interpolate(unit(x), size=sizes.pop(), mode=LINEAR[self.ndim], align_corners=self.align_corners)
            if kept:
                x = x + kept.pop()
        return self.last(x)


class _Unit(nn.Module):
    """A pre-activation residual unit (https://arxiv.org/abs/1603.05027)."""

    def __init__(self, channels: int, hidden: int, ndim: int) -> None:
        conv, norm = CONV[ndim], BATCH_NORM[ndim]
        super().__init__()
        self.branch = nn.Sequential(
            norm(channels),
            nn.ReLU(),
            conv(channels, hidden, 1, bias=False),
            norm(hidden),
            nn.ReLU(),
            conv(hidden, hidden, 3, padding=1, bias=False),
            norm(hidden),
            nn.ReLU(),
            conv(hidden, channels, 1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.branch(x)
