"""Statistics along time: how features are on average, how they vary, and how much they change from frame to frame.

    f_t = mean of x over H, W;   y = norm([mean_t f ; std_t f ; mean_t |f_{t+1} - f_t|]);   logits = W dropout(y)

The first two are the statistics pooling of Snyder et al., ICASSP 2018 (x-vectors,
https://doi.org/10.1109/ICASSP.2018.8461375), along the frames of a clip. The third tells motion from a still picture:
features of single frames do not.
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.nd import spatial_axes


class StatisticsHead(nn.Module):
    """Mean, standard deviation and mean absolute change along time, normalised, dropout and a linear layer.

    Args:
        channels: of the features.
        num_classes: K.
        dropout: probability before the linear layer.

    Shapes: (N, channels, T, *S) -> logits (N, K). The first axis after the channels is taken for time.

    Examples:
        >>> from cbam3d.attention.heads import StatisticsHead
        >>> head = StatisticsHead(512, num_classes=10)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(self, channels: int, num_classes: int, dropout: float = 0.5) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3 * channels, affine=False)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(3 * channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        spatial_axes(x)
        frames = x.flatten(3).mean(3) if x.ndim > 3 else x
        changes = (frames[:, :, 1:] - frames[:, :, :-1]).abs()
        change = changes.sum(2) / max(1, changes.shape[2])
        y = torch.cat([frames.mean(2), frames.std(2, correction=0), change], dim=1)
        return self.classifier(self.dropout(self.norm(y)))
