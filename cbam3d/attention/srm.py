"""SRM: style-based recalibration module.

Lee, Kim, Nam, ICCV 2019, https://arxiv.org/abs/1903.10829

    t_c = [mean x_c, std x_c],   x_c · σ(BN(w_c · t_c))
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, expand_as, run_wide, wide, zero_
from cbam3d.attention.nd import check_channels, spatial_axes


class SRM(Gate):
    """Style-based recalibration: one weight per channel, from its own mean and standard deviation.

    Args:
        channels: number of input channels C.
        eps: added to the variance.
        init: "paper" (w starts at 0, as in the official code, so that every gate starts at 0.5), or
            "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, 1, …).

    The standard deviation is the paper's, over |S| (the official code divides by |S| - 1). BatchNorm needs more
    than one sample in training.

    Examples:
        >>> from cbam3d.attention import SRM
        >>> block = SRM(64)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(self, channels: int, eps: float = 1e-5, init: Init = "paper") -> None:
        super().__init__(init)
        self.weight = nn.Parameter(torch.zeros(channels, 2))
        self.norm = nn.BatchNorm1d(channels)
        self.eps = eps
        if self.identity_init:
            nn.init.normal_(self.weight, std=0.5**0.5)
            zero_(self.norm)

    def logits(self, x: Tensor) -> Tensor:
        check_channels(x, len(self.weight))
        variance, mean = torch.var_mean(wide(x), spatial_axes(x), correction=0)
        style = torch.stack([mean, (variance + self.eps).sqrt()], dim=2)
        return expand_as(run_wide(self.norm, (style * self.weight).sum(2)), x)
