"""CSRA: class-specific residual attention, a head for classification.

Zhu, Wu, ICCV 2021, https://arxiv.org/abs/2108.02456

    y = conv1x1 x, K maps;   logits_k = mean_s y_ks + λ max_s y_ks
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import positive
from cbam3d.attention.nd import amax, spatial_axes


class CSRA(nn.Module):
    """Class-specific residual attention: a linear head that adds the score where each class is strongest.

    Args:
        in_channels: channels of the features.
        num_classes: K.
        weight: λ of the attention; 0 is the usual head, mean pooling and a linear layer.
        temperature: None for the maximum; else positions are weighted by softmax(temperature · y), whose limit it is.

    Shapes: (N, in_channels, *S), of any rank -> logits (N, K).

    The official code also divides each class's scores by the norm of its weights; the paper's formula does not. Its
    several heads with temperatures of their own, whose logits are added, are left out: this is one.

    A head: it replaces pooling and the last layer. Not to be confused with residual attention (`ResidualAttention`).

    Examples:
        >>> from cbam3d.attention.heads import CSRA
        >>> head = CSRA(512, num_classes=10, weight=0.2)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self, in_channels: int, num_classes: int, weight: float = 0.1, temperature: float | None = None
    ) -> None:
        super().__init__()
        positive("in_channels and num_classes", in_channels, num_classes)
        if temperature is not None and temperature <= 0:
            raise ValueError(f"temperature must be above 0, got {temperature}")
        self.classifier = nn.Linear(in_channels, num_classes, bias=False)
        self.weight, self.temperature = weight, temperature

    def class_maps(self, x: Tensor) -> Tensor:
        """Each class's score at each position, (N, K, *S)."""
        return torch.einsum("nc...,kc->nk...", x, self.classifier.weight)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, *S) -> (N, K)."""
        maps = self.class_maps(x)
        if self.temperature is None:
            strongest = amax(maps, spatial_axes(x))
        else:
            flat = maps.flatten(2)
            strongest = (flat * (self.temperature * flat).softmax(2)).sum(2)
        return maps.mean(spatial_axes(x)) + self.weight * strongest
