"""SimAM: a simple, parameter-free attention module.

Yang, Zhang, Li, Xie, ICML 2021, https://proceedings.mlr.press/v139/yang21o.html

    x · σ((x - μ)² / (4 (v + λ)) + ½),   μ and v the mean and variance over S of each channel
"""

import math

from torch import Tensor

from cbam3d.attention.gate import Factor, Gate, Init, wide
from cbam3d.attention.nd import spatial_axes


class SimAM(Gate):
    """SimAM: values that deviate from their channel's mean weigh more; parameter-free.

    Args:
        channels: number of input channels C; unused.
        regularization: λ.
        init: "paper"; or "identity": the logits have a learned factor that starts at 0, the only parameter.

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, *S).

    The variance is divided by |S| - 1, as in the official code, and is 0 for a single position.

    Examples:
        >>> from cbam3d.attention import SimAM
        >>> list(SimAM(64).parameters())
        []
        >>> SimAM(64)(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(self, channels: int, regularization: float = 1e-4, init: Init = "paper") -> None:
        super().__init__(init)
        self.regularization = regularization
        self.gain = Factor(init)

    def logits(self, x: Tensor) -> Tensor:
        axes, count = spatial_axes(x), math.prod(x.shape[2:])
        squares = (wide(x) - wide(x).mean(axes, keepdim=True)).square()
        variance = squares.mean(axes, keepdim=True) * (count / max(1, count - 1))
        return self.gain(squares / (4 * (variance + self.regularization)) + 0.5)
