"""Expectation-maximisation attention.

Li, Zhong, Wu, Yang, Lin, Liu, ICCV 2019, https://arxiv.org/abs/1907.13426

    three times: Z = softmax_k(yᵀ μ), μ = y Z / ΣZ, of unit length;   relu(x + BN(conv(relu(μ Zᵀ)))),   y = conv(x)
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Init, check_init, positive, wide, without_float16, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank


class EMAttention(nn.Module):
    """Expectation-maximisation attention, "EMA" in its paper: features are reconstructed from a few fitted bases.

    Args:
        channels: number of input channels C.
        num_bases: K.
        num_steps: of expectation and maximisation.
        momentum: weight of the old bases in the moving average, updated in training.
        ndim: 2 for images, 3 for clips.
        init: "paper"; or "identity": BN starts at 0, and the last ReLU is omitted, as it would clip the input.

    Shapes: (N, C, *S) -> the same. Memory grows with |S| K.

    Gradients flow through the steps, as in the formulas; the official code stops them there, and with them all of
    the first convolution's. With activation checkpointing the bases are updated twice per step, and recomputation
    starts from updated ones.

    Examples:
        >>> from cbam3d.attention import EMAttention
        >>> block = EMAttention(64, num_bases=16)
        >>> block(torch.randn(2, 64, 4, 7, 7)).shape
        torch.Size([2, 64, 4, 7, 7])
    """

    bases: Tensor
    floor: Tensor

    def __init__(
        self,
        channels: int,
        num_bases: int = 64,
        num_steps: int = 3,
        momentum: float = 0.9,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__()
        self.ndim, self.num_steps, self.momentum = check_ndim(ndim), num_steps, momentum
        positive("num_bases and num_steps", num_bases, num_steps)
        bases = torch.randn(channels, num_bases) * math.sqrt(2 / num_bases)
        self.register_buffer("bases", F.normalize(bases, dim=0))
        self.first = CONV[ndim](channels, channels, 1)
        self.last = nn.Sequential(CONV[ndim](channels, channels, 1, bias=False), BATCH_NORM[ndim](channels))
        identity = check_init(init)
        if identity:
            zero_(self.last[1])
        # the last ReLU's lower bound; a buffer, so that it is saved with the weights trained with it
        self.register_buffer("floor", torch.tensor(-torch.inf if identity else 0.0))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        y = wide(self.first(x).flatten(2))  # (N, C, |S|)
        with without_float16(x):
            rebuilt = self._rebuild(y).reshape(x.shape).to(x.dtype)
        return torch.maximum(x + self.last(F.relu(rebuilt)).to(x.dtype), self.floor.to(x.dtype))

    def _rebuild(self, y: Tensor) -> Tensor:
        """Reconstruct (N, C, |S|) from the fitted bases; in training the buffer moves towards them."""
        bases = self.bases.to(y.dtype, copy=True).expand(y.shape[0], -1, -1)  # the buffer changes before backward
        weights = (y.transpose(1, 2) @ bases).softmax(2)  # (N, |S|, K)
        for step in range(self.num_steps):
            if step:
                weights = (y.transpose(1, 2) @ bases).softmax(2)
            bases = F.normalize(y @ weights, dim=1)  # to which a division by ΣZ makes no difference
        if self.training:
            with torch.no_grad():
                self.bases.lerp_(bases.mean(0).to(self.bases.dtype), 1 - self.momentum)
        return bases @ weights.transpose(1, 2)
