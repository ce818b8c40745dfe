"""ECA: efficient channel attention.

Wang, Wu, Zhu, Li, Zuo, Hu, CVPR 2020, https://arxiv.org/abs/1910.03151

    x · σ(conv1d_k(GAP x)), along the channels, k = |log2(C)/γ + b/γ| made odd
"""

import math

from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, expand_as, positive, zero_
from cbam3d.attention.nd import same_padding
from cbam3d.attention.ops.gating import mean_positions


class ECA(Gate):
    """Efficient channel attention: one weight per channel, from neighbouring channels.

    Args:
        channels: number of input channels C.
        kernel_size: odd; channels covered by the convolution; None for the paper's rule, from C, γ and b.
        gamma: of that rule.
        b: of that rule.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, 1, …).

    Raises:
        ValueError: an even kernel.

    Examples:
        >>> from cbam3d.attention import ECA
        >>> sum(parameter.numel() for parameter in ECA(256).parameters())
        5
        >>> ECA(256)(torch.randn(2, 256, 8, 14, 14)).shape
        torch.Size([2, 256, 8, 14, 14])
    """

    def __init__(
        self, channels: int, kernel_size: int | None = None, gamma: float = 2, b: float = 1, init: Init = "paper"
    ) -> None:
        super().__init__(init)
        positive("channels", channels)
        if gamma <= 0:
            raise ValueError(f"gamma must be above 0, got {gamma}")
        if kernel_size is None:
            nearest = int(abs((math.log2(channels) + b) / gamma))
            kernel_size = nearest if nearest % 2 else nearest + 1
        (padding,) = same_padding(kernel_size, 1)
        self.conv = nn.Conv1d(1, 1, kernel_size, padding=padding, bias=False)
        if self.identity_init:
            zero_(self.conv)

    def logits(self, x: Tensor) -> Tensor:
        return expand_as(self.conv(mean_positions(x)[:, None])[:, 0], x)
