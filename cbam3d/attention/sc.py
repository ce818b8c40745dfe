"""SC: self-calibrated convolution.

Liu, Hou, Cheng, Wang, Feng, CVPR 2020, "Improving Convolutional Networks with Self-Calibrated Convolutions" (SCNet),
https://mmcheng.net/scconv

    x = [x1 ; x2];   y1 = K4(K3(x1) · σ(x1 + up(K2(pool_r x1)))),   y2 = K1(x2);   [y1 ; y2]
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Blend, Init, one_of
from cbam3d.attention.nd import BATCH_NORM, CONV, LINEAR, check_ndim, check_rank, per_frame, windowed_mean


class SC(Blend):
    """Self-calibrated convolution: half of the channels are weighted by their context at a lower resolution.

    Args:
        channels: number of input channels C, at least 2; if odd, y2 has one more.
        pooling: r: the low resolution has 1/r of height and width (rounded up) and all frames.
        ndim: 2 for images, 3 for clips.
        upsampling: "linear", or "nearest" as in the official code.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`), as SC returns new features.

    Shapes: (N, C, *S) -> the same.

    Each K is a 3x3 convolution (3x3x3 in clips) and BatchNorm. In the official code K1 and K4 end in a ReLU, the halves
    are made by a 1x1 convolution each, upsampling is "nearest", and pooling drops leftover rows and columns, which are
    averaged here.

    Raises:
        ValueError: fewer than two channels, or pooling below 1.

    Examples:
        >>> from cbam3d.attention import SC
        >>> block = SC(64, pooling=2)
        >>> block(torch.randn(2, 64, 4, 8, 8)).shape
        torch.Size([2, 64, 4, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        pooling: int = 4,
        ndim: int = 3,
        init: Init = "paper",
        upsampling: Literal["linear", "nearest"] = "linear",
    ) -> None:
        super().__init__(init)
        self.upsampling = one_of("upsampling", upsampling, "linear", "nearest")
        self.ndim = check_ndim(ndim)
        if channels < 2 or pooling < 1:
            raise ValueError(f"channels must be at least 2 and pooling at least 1, got {channels} and {pooling}")
        self.pooling = per_frame(pooling, ndim)
        self.split = [channels // 2, channels - channels // 2]

        def conv(width: int) -> nn.Sequential:
            return nn.Sequential(CONV[ndim](width, width, 3, padding=1, bias=False), BATCH_NORM[ndim](width))

        self.k2, self.k3, self.k4 = (conv(self.split[0]) for _ in range(3))
        self.k1 = conv(self.split[1])

    def attention_map(self, x: Tensor) -> Tensor:
        """The weights of the first half of the channels."""
        return self._calibrate(x.split(self.split, 1)[0])

    def transform(self, x: Tensor) -> Tensor:
        first, second = x.split(self.split, 1)
        return torch.cat([self.k4(self.k3(first) * self._calibrate(first)), self.k1(second)], 1)

    def _calibrate(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        missing = [-side % r for side, r in zip(x.shape[2:], self.pooling, strict=True)]
        around = self.k2(windowed_mean(x, self.pooling, self.pooling, [0] * self.ndim, missing))
        if self.upsampling == "nearest":
            return torch.sigmoid(x + F.interpolate(around, size=x.shape[2:]))
        return torch.sigmoid(x + F.interpolate(around, size=x.shape[2:], mode=LINEAR[self.ndim], align_corners=False))
