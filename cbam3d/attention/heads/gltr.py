"""GLTR: global-local temporal representations.

Li, Wang, Tian, Gao, Zhang, ICCV 2019, https://arxiv.org/abs/1908.10049

    f_t = mean of x over H, W;   p = [conv_r(f), r = 1, 2, 4], r the dilation along time
    b, c = relu(BN(conv1(p)));   e = conv1(p);   y = p + W (softmax_t'(b_tᵀ c_t') e);   logits = V mean_t y
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import hidden_channels, positive, wide, without_float16
from cbam3d.attention.nd import as_clips


class GLTR(nn.Module):
    """A pyramid of dilated convolutions along time, then self-attention between frames.

    Args:
        channels: of the features.
        num_classes: K.
        dilations: of the convolutions, three frames each: the local part.
        dim: channels of each convolution.
        reduction: the attention between frames, the global part, has so many times fewer channels than the pyramid.
        dropout: probability before the last layer.

    Shapes: (N, channels, T, H, W) -> logits (N, K). An image is a clip of one frame, (N, channels, T) its frames.

    The paper's form. The authors' code concatenates the features of the frames themselves, too, has dilations of 1, 2
    and 3, no norm and ReLU of b and c, and a norm after W that starts at 0. Beyond the first and the last frame
    features are 0. Memory of the attention grows with T².

    Raises:
        ValueError: no dilation, or a number below 1.

    Examples:
        >>> from cbam3d.attention.heads import GLTR
        >>> head = GLTR(512, num_classes=10, dilations=(1, 2))
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        dilations: Sequence[int] = (1, 2, 4),
        dim: int = 128,
        reduction: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if not dilations:
            raise ValueError("dilations must name at least one")
        positive("dilations and dim", *dilations, dim)
        self.pyramid = nn.ModuleList(nn.Conv1d(channels, dim, 3, padding=r, dilation=r) for r in dilations)
        width = dim * len(dilations)
        hidden = hidden_channels(width, reduction)
        self.query, self.key = (
            nn.Sequential(nn.Conv1d(width, hidden, 1, bias=False), nn.BatchNorm1d(hidden), nn.ReLU()) for _ in range(2)
        )
        self.value, self.out = nn.Conv1d(width, hidden, 1), nn.Conv1d(hidden, width, 1)
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        frames = as_clips(x).flatten(3).mean(3)
        pyramid = torch.cat([conv(frames) for conv in self.pyramid], dim=1)
        query, key = wide(self.query(pyramid)), wide(self.key(pyramid))
        with without_float16(x):
            weights = (query.transpose(1, 2) @ key).softmax(-1)  # (N, T, T')
        attended = self.value(pyramid) @ weights.transpose(1, 2).to(pyramid.dtype)
        return self.classifier(self.dropout((pyramid + self.out(attended)).mean(2)))
