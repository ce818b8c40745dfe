"""SimAM: a simple, parameter-free attention module.

Yang, Zhang, Li, Xie, ICML 2021, https://proceedings.mlr.press/v139/yang21o.html

    x · σ((x - μ)² / (4 (v + λ)) + ½),   μ and v the mean and variance over S of each channel
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init
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
        self.gain = nn.Parameter(torch.zeros(())) if self.identity_init else None

    def logits(self, x: Tensor) -> Tensor:
        axes = spatial_axes(x)
        squares = (x - x.mean(axes, keepdim=True)).square()
        variance = squares.sum(axes, keepdim=True) / max(1, x[0, 0].numel() - 1)
        energy = squares / (4 * (variance + self.regularization)) + 0.5
        return energy if self.gain is None else self.gain.to(x.dtype) * energy
