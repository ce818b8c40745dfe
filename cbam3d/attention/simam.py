"""SimAM: a simple, parameter-free attention module.

Yang, Zhang, Li, Xie, ICML 2021, https://proceedings.mlr.press/v139/yang21o.html

    x · σ((x - μ)² / (4 (v + λ)) + ½),   μ and v the mean and variance over S of each channel
"""

import math

from torch import Tensor

from cbam3d.attention.gate import Factor, Gate, Init, wide
from cbam3d.attention.nd import spatial_axes


class SimAM(Gate):
    """SimAM: what differs from the rest of its channel counts more; without parameters.

    Args:
        channels: number of input channels C; nothing depends on it.
        regularization: λ.
        init: "paper"; or "identity": the expression has a learned factor that starts at 0, the one parameter.

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, *S).

    The variance is over n = |S| - 1, as in the official code, and 0 where there is one position only.
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
