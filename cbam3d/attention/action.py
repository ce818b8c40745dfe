"""ACTION: spatio-temporal, channel and motion excitation.

Wang, She, Smolic, CVPR 2021, https://arxiv.org/abs/2103.07372

    spatio-temporal:   s = x (1 + σ(K * mean_c x)), K over T, H, W
    channel:           c = x (1 + σ(W2 relu(k * W1 GAP x))), pooled over H, W; k along T
    motion:            m = x (1 + σ(W2 GAP m)), of the differences m of TEA
    out = s + c + m
"""

from torch import Tensor, nn

from cbam3d.attention.gate import Blend, Gate, Init, hidden_channels
from cbam3d.attention.nd import CONV, check_clips, check_rank
from cbam3d.attention.tea import MotionExcitation
from cbam3d.attention.tsm import fold_of, shift


class Action(Blend):
    """ACTION: the sum of three excitations.

    Args:
        channels: number of input channels C.
        reduction: of the channel and the motion excitation.
        share: of the channels that are shifted by a frame in each direction before (see `TSM`), as in the official
            code (where the shift is learned from there); 0, the paper's formula, for none.
        init: "paper", whose sum is 3 to 6 times the features, or "identity": it blends in from 0 (see `Blend`).
        ndim: 3; images have no time axis.

    Shapes: (N, C, T, H, W) -> the same; `attention_map` is (N, C, T, H, W), the mean of the three factors for the
        shifted features.

    Raises:
        ValueError: ndim other than 3, or a share out of 0 … 0.5.

    Examples:
        >>> from cbam3d.attention import Action
        >>> block = Action(64, share=0.125)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    ranks = (3,)

    def __init__(
        self, channels: int, reduction: int = 16, share: float = 0.0, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__(init)
        check_clips("action", ndim)
        self.fold = fold_of(channels, share)
        self.spatio_temporal = _SpatioTemporalExcitation()
        self.channel = _ChannelExcitation(channels, reduction)
        self.motion = _MotionExcitation(channels, reduction)

    def attention_map(self, x: Tensor) -> Tensor:
        """The mean of the three factors."""
        return self._sum(self._shifted(x)) / 3

    def transform(self, x: Tensor) -> Tensor:
        check_rank(x, 3)
        x = self._shifted(x)
        return x * self._sum(x)

    def _shifted(self, x: Tensor) -> Tensor:
        return shift(x, self.fold) if self.fold else x

    def _sum(self, x: Tensor) -> Tensor:
        """Of the three factors."""
        maps = [gate.attention_map(x) for gate in (self.spatio_temporal, self.channel, self.motion)]
        return maps[0] + maps[1] + maps[2]


class _SpatioTemporalExcitation(Gate):
    base = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.conv = CONV[3](1, 1, 3, padding=1, bias=False)

    def logits(self, x: Tensor) -> Tensor:
        return self.conv(x.mean(1, keepdim=True))


class _MotionExcitation(MotionExcitation):
    """TEA's, with the factor 1 + σ, and without BatchNorm before σ."""

    base = 1.0

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__(channels, reduction)
        self.scale.fill_(1.0)
        self.expand = self.expand[:1]


class _ChannelExcitation(Gate):
    base = 1.0

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        hidden = hidden_channels(channels, reduction)
        self.layers = nn.Sequential(
            nn.Conv1d(channels, hidden, 1, bias=False),
            nn.Conv1d(hidden, hidden, 3, padding=1, bias=False),
            nn.ReLU(),
            nn.Conv1d(hidden, channels, 1, bias=False),
        )

    def logits(self, x: Tensor) -> Tensor:
        return self.layers(x.mean((3, 4)))[..., None, None]
