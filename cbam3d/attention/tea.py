"""TEA: temporal excitation and aggregation.

Li, Ji, Shi, Zhang, Kang, Wang, CVPR 2020, https://arxiv.org/abs/2004.01398

    motion excitation:      r = BN(W1 x);   m_t = K * r_{t+1} - r_t, 0 for the last frame
                            y = x 2σ(BN(W2 GAP m)), pooled over H, W
    temporal aggregation:   y in 4 parts of channels, y'_1 = y_1, y'_i = S_i * (D_i * (y_i + y'_{i-1}))
                            D along T, depthwise; S along H and W
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Blend, Gate, Init, hidden_channels, zero_
from cbam3d.attention.nd import CONV, check_clips, check_rank

PARTS = 4


class MotionExcitation(Gate):
    """Motion excitation: channels that differ between neighbouring frames are amplified.

    Args:
        channels: number of input channels C.
        reduction: differences are taken in `max(1, channels // reduction)` channels.
        init: "paper", or "identity", whose last layer starts at 0 (see `Gate`); the factor is 2σ in both.

    Shapes: (N, C, T, H, W) -> the same; `attention_map` is (N, C, T, 1, 1).

    The factor is the paper's, x + x (2σ - 1); the authors' code has x + x (σ - ½).
    """

    def __init__(self, channels: int, reduction: int = 16, init: Init = "paper") -> None:
        super().__init__(init)
        self.scale.fill_(2.0)
        hidden = hidden_channels(channels, reduction)
        self.squeeze = nn.Sequential(CONV[3](channels, hidden, 1, bias=False), nn.BatchNorm3d(hidden))
        self.next = CONV[3](hidden, hidden, (1, 3, 3), padding=(0, 1, 1), groups=hidden, bias=False)
        self.expand = nn.Sequential(CONV[3](hidden, channels, 1, bias=False), nn.BatchNorm3d(channels))
        if self.identity_init:
            zero_(self.expand[1])

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, 3)
        reduced = self.squeeze(x)
        motion = self.next(reduced)[:, :, 1:] - reduced[:, :, :-1]
        return self.expand(F.pad(motion.mean((3, 4), keepdim=True), [0, 0, 0, 0, 0, 1]))


class TEA(Blend):
    """Motion excitation, then multiple temporal aggregation.

    Args:
        channels: number of input channels C; those beyond a multiple of 4 belong to the first part.
        reduction: of the motion excitation.
        init: "paper", or "identity": the output blends in from 0 (see `Blend`), as TEA returns new features.
        ndim: 3; images have no time axis.

    Shapes: (N, C, T, H, W) -> the same; `attention_map` is (N, C, T, 1, 1), of the motion excitation.

    In the paper the aggregation replaces the 3x3 convolution of a bottleneck. Its convolutions along T start as the
    identity. The authors' code also has BatchNorm and ReLU after each convolution in frames, leaves the last part
    without one in place of the first, and starts that part's convolution along T as a shift.

    Raises:
        ValueError: ndim other than 3.

    Examples:
        >>> from cbam3d.attention import TEA
        >>> block = TEA(64)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    ranks = (3,)

    def __init__(self, channels: int, reduction: int = 16, ndim: int = 3, init: Init = "paper") -> None:
        super().__init__(init)
        check_clips("tea", ndim)
        self.motion = MotionExcitation(channels, reduction)
        width = channels // PARTS
        self.split = [channels - (PARTS - 1) * width, *(PARTS - 1) * [width]] if width else [channels]
        self.along_time = nn.ModuleList(
            CONV[3](width, width, (3, 1, 1), padding=(1, 0, 0), groups=width, bias=False) for _ in self.split[1:]
        )
        self.in_frames = nn.ModuleList(
            CONV[3](width, width, (1, 3, 3), padding=(0, 1, 1), bias=False) for _ in self.split[1:]
        )
        for conv in self.along_time:
            nn.init.dirac_(conv.get_parameter("weight"), groups=width)

    def attention_map(self, x: Tensor) -> Tensor:
        """The factors of the motion excitation."""
        return self.motion.attention_map(x)

    def transform(self, x: Tensor) -> Tensor:
        first, *others = self.motion(x).split(self.split, dim=1)
        parts = [first]
        for i, (part, along_time, in_frames) in enumerate(zip(others, self.along_time, self.in_frames, strict=True)):
            parts.append(in_frames(along_time(part + parts[-1] if i else part)))
        return torch.cat(parts, dim=1)
