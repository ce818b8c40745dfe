"""The implementation of CBAM that most repositories copy, which every benchmark here measures against."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

_CONV = {2: nn.Conv2d, 3: nn.Conv3d}


class UsualCBAM(nn.Module):
    """Channel attention by two pooled MLPs, then a 7x7(x7) convolution of two maps."""

    def __init__(self, channels: int, ndim: int = 3) -> None:
        super().__init__()
        hidden = max(1, channels // 16)
        self.mlp = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels))
        self.conv = _CONV[ndim](2, 1, 7, padding=3, bias=False)
        self.mean = {2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}[ndim]
        self.highest = {2: F.adaptive_max_pool2d, 3: F.adaptive_max_pool3d}[ndim]

    def forward(self, x: Tensor) -> Tensor:
        n, c = x.shape[:2]
        pooled = [pool(x, 1).view(n, c) for pool in (self.mean, self.highest)]
        gate = torch.sigmoid(self.mlp(pooled[0]) + self.mlp(pooled[1]))
        x = x * gate.view(n, c, *[1] * (x.ndim - 2)).expand_as(x)
        maps = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
        return x * torch.sigmoid(self.conv(maps)).expand_as(x)
