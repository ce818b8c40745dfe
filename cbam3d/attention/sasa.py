"""SASA: stand-alone self-attention.

Ramachandran, Parmar, Vaswani, Bello, Levskaya, Shlens, NeurIPS 2019, https://arxiv.org/abs/1906.05909

    y_i = sum_j softmax_j(q_iᵀ k_j + q_iᵀ r_{j-i}) v_j,   j in the window around i;   q, k, v = W x
"""

from collections.abc import Sequence
from math import gcd

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Blend, Init, positive, wide, without_float16
from cbam3d.attention.nd import CONV, check_ndim, check_rank
from cbam3d.attention.neighbourhoods import inside, window_size, windows


class SASA(Blend):
    """Self-attention of each position over the window around it, with learned relative positions.

    Args:
        channels: number of input channels C.
        kernel_size: of the window, odd: an int for H and W, with one frame of a clip; or one int per axis.
        heads: of the attention; where it does not divide C, their greatest common divisor.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`).

    Shapes: (N, C, *S) -> the same.

    Each head has an embedding of the offset along every axis on which the window has more than one position; they share
    the head's channels. Positions beyond the edges are not attended to. Time and memory grow with |S| times the window.

    Raises:
        ValueError: an even kernel size, or a number below 1.

    Examples:
        >>> from cbam3d.attention import SASA
        >>> block = SASA(64, kernel_size=(3, 5, 5))
        >>> block(torch.randn(1, 64, 4, 7, 7)).shape
        torch.Size([1, 64, 4, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        kernel_size: int | Sequence[int] = 7,
        heads: int = 8,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        positive("heads", heads)
        self.heads = gcd(channels, heads)
        self.window = window_size(kernel_size, ndim)
        self.query, self.key, self.value = (CONV[ndim](channels, channels, 1, bias=False) for _ in range(3))
        lengths = {axis: size for axis, size in zip("thw"[-ndim:], self.window, strict=True) if size > 1}
        self.offsets = nn.ParameterDict()  # of each axis, (its share of a head's channels, positions)
        left = channels // self.heads
        for i, (axis, length) in enumerate(lengths.items()):
            share = left // (len(lengths) - i)
            left -= share
            if share:
                self.offsets[axis] = nn.Parameter(torch.randn(share, length))

    def transform(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        query, key, value = (self._by_head(layer(x)) for layer in (self.query, self.key, self.value))
        axes = "tyx"[-self.ndim :]
        window = axes.upper()
        with without_float16(x):
            weights = self._weights(wide(query), wide(key), axes, window)
        out = torch.einsum(
            f"n{axes}{window},nd{axes}{window}->nd{axes}", weights.to(value.dtype), windows(value, self.window)
        )
        return out.reshape(x.shape)

    def _weights(self, query: Tensor, key: Tensor, axes: str, window: str) -> Tensor:
        scores = torch.einsum(f"nd{axes},nd{axes}{window}->n{axes}{window}", query, windows(key, self.window))
        start = 0
        for axis, offsets in self.offsets.items():
            part = query[:, start : start + len(offsets)]
            start += len(offsets)
            along = torch.einsum(f"nd{axes},dk->n{axes}k", part, offsets.to(part.dtype))
            shape = [size if name == axis else 1 for name, size in zip("thw"[-self.ndim :], self.window, strict=True)]
            scores = scores + along.unflatten(-1, shape)
        scores = scores.masked_fill(~inside(query, self.window), -torch.inf)
        return scores.flatten(-self.ndim).softmax(-1).view(scores.shape)

    def _by_head(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> (N · heads, C / heads, *S)."""
        return x.unflatten(1, (self.heads, -1)).flatten(0, 1)
