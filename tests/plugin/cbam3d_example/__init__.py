"""Doubled: an example of a mechanism. https://example.org/doubled"""

import torch
from torch import Tensor, nn


class Doubled(nn.Module):
    """Adds what it is given, times a learned factor for each channel, to itself."""

    def __init__(self, channels: int, init: str = "paper") -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.full((channels,), 0.0 if init == "identity" else 1.0))

    def forward(self, x: Tensor) -> Tensor:
        return x + x * self.factor.view(-1, *(1,) * (x.ndim - 2))


class Largest(nn.Module):
    """A linear classifier of the largest features."""

    def __init__(self, channels: int, num_classes: int, bias: bool = True) -> None:
        super().__init__()
        self.linear = nn.Linear(channels, num_classes, bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(2).amax(2))


class OneLayer(nn.Module):
    """A linear classifier of the mean colours."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.linear = nn.Linear(3, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.flatten(2).mean(2))
