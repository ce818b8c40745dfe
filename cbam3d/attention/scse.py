"""scSE: concurrent spatial and channel squeeze and excitation.

Roy, Navab, Wachinger, MICCAI 2018, https://arxiv.org/abs/1803.02579

    x σ(W2 relu(W1 GAP x)) + x σ(w · x),  or their maximum
"""

from typing import Literal

import torch
from torch import Tensor

from cbam3d.attention.gate import Gate, Init, channel_mlp, expand_as, one_of, zero_
from cbam3d.attention.nd import CONV, check_ndim, check_rank
from cbam3d.attention.ops.gating import mean_positions


class SCSE(Gate):
    """Concurrent squeeze and excitation: channel and position weights, combined.

    Args:
        channels: number of input channels C.
        reduction: the hidden layer has `max(1, channels // reduction)` units.
        combine: "sum" or "max", elementwise.
        bias: biases in all layers.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity: the last layers start at 0; as two gates of
            ½ add up to 1, only "max" needs the factor 2 (see `Gate`).

    Shapes: (N, C, *S) -> the same.

    The sum is the conference paper's; its authors' code takes the maximum. Of the variants of the journal article
    (https://arxiv.org/abs/1808.08127), multiplication and concatenation (which changes the shape) are omitted.

    Raises:
        ValueError: an unknown `combine`.

    Examples:
        >>> from cbam3d.attention import SCSE
        >>> block = SCSE(64, combine="max")
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        combine: Literal["sum", "max"] = "sum",
        bias: bool = True,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        self.combine = one_of("combine", combine, "sum", "max")
        self.channel = channel_mlp(channels, reduction, bias, self.identity_init)
        self.spatial = CONV[ndim](channels, 1, 1, bias=bias)
        if self.identity_init:
            zero_(self.spatial)
            if combine == "sum":
                self.scale.fill_(1.0)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The maps "channel", (N, C, 1, …), and "spatial", (N, 1, *S)."""
        check_rank(x, self.ndim)
        channel = expand_as(self.channel(mean_positions(x)), x)
        return {"channel": self.squash(channel), "spatial": self.squash(self.spatial(x))}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        channel, spatial = (one.to(x.dtype) for one in self.attention_maps(x).values())
        if self.combine == "sum":
            return x * (channel + spatial)
        return torch.maximum(x * channel, x * spatial)
