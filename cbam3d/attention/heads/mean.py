"""The usual head: the mean over all positions, and a linear layer. With statistics of motion, where wanted."""

import torch
from torch import Tensor, nn

from cbam3d.attention.nd import spatial_axes


class MeanHead(nn.Module):
    """Mean over positions, dropout and a linear layer.

    Args:
        channels: of the features.
        num_classes: K.
        changes: beside the mean, the mean absolute difference between neighbouring frames, for features with an axis T,
            the first after the channels.
        dropout: probability before the linear layer.

    Shapes: (N, channels, *S), of any rank -> logits (N, K).
    """

    def __init__(self, channels: int, num_classes: int, changes: bool = False, dropout: float = 0.0) -> None:
        super().__init__()
        self.changes = changes
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(channels * (1 + changes), num_classes)

    def forward(self, x: Tensor) -> Tensor:
        pooled = x.mean(spatial_axes(x))
        if self.changes:
            between = (x[:, :, 1:] - x[:, :, :-1]).abs().flatten(2)
            pooled = torch.cat([pooled, between.sum(2) / max(1, between.shape[2])], dim=1)
        return self.classifier(self.dropout(pooled))
