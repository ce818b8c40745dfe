"""GCT: gated channel transformation.

Yang, Zhu, Wu, Yang, CVPR 2020, https://arxiv.org/abs/1909.11519

    s_c = α_c ‖x_c‖₂,   ŝ = √C s / ‖s‖₂,   x_c · (1 + tanh(γ_c ŝ_c + β_c))
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Init, Multiplicative, check_init, expand_as, wide
from cbam3d.attention.nd import check_channels, spatial_axes


class GCT(Multiplicative):
    """Gated channel transformation: channels compete or cooperate according to their norms.

    Args:
        channels: number of input channels C.
        eps: added under the square roots.
        init: no effect: the paper's start, γ = β = 0, is the identity.

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, 1, …), in (0, 2).

    The norms are ℓ2; the authors' code has ℓ1 as well.

    Examples:
        >>> from cbam3d.attention import GCT
        >>> x = torch.randn(2, 64, 8, 14, 14)
        >>> torch.equal(GCT(64)(x), x)  # as in the paper
        True
    """

    def __init__(self, channels: int, eps: float = 1e-5, init: Init = "paper") -> None:
        super().__init__()
        check_init(init)
        self.alpha = nn.Parameter(torch.ones(channels))
        self.gamma = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))
        self.eps = eps

    def attention_map(self, x: Tensor) -> Tensor:
        check_channels(x, len(self.alpha))
        squares = wide(x).square().sum(spatial_axes(x))
        embedding = self.alpha * (squares + self.eps).sqrt()
        normed = embedding * (embedding.square().mean(1, keepdim=True) + self.eps).rsqrt()
        return expand_as(1 + torch.tanh(self.gamma * normed + self.beta), x)
