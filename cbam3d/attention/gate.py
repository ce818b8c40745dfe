"""What every multiplicative attention shares: a map in (0, 1) or (0, 2) that scales the features."""

from typing import Literal

import torch
from torch import Tensor, nn

Init = Literal["paper", "identity"]


def check_init(init: str) -> bool:
    """True for "identity", False for "paper"; raises ValueError for anything else."""
    if init not in ("paper", "identity"):
        raise ValueError(f'init must be "paper" or "identity", got {init!r}')
    return init == "identity"


class Gate(nn.Module):
    """`x * s(logits(x))`, with `s = σ` (init="paper") or `s = 2σ` (init="identity").

    A subclass defines `logits`. With init="identity" it also zeroes its last layer, so that the logits
    are 0, the map is `2σ(0) = 1` exactly, and the gate starts as the exact identity while its last
    layer still receives a gradient: a pretrained network keeps its accuracy when gates are put in.

    The factor before σ is the buffer `scale`, so that it travels with the weights that were trained under it.
    """

    scale: Tensor

    def __init__(self, init: Init = "paper") -> None:
        super().__init__()
        self.identity_init = check_init(init)
        self.register_buffer("scale", torch.tensor(2.0 if self.identity_init else 1.0))

    def logits(self, x: Tensor) -> Tensor:
        """The map before the sigmoid, broadcastable to `x`."""
        raise NotImplementedError

    def attention_map(self, x: Tensor) -> Tensor:
        """The map that `forward` multiplies with: in (0, 1), or (0, 2) with init="identity"."""
        return self.scale * torch.sigmoid(self.logits(x))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        return x * self.attention_map(x)
