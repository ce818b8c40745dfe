"""GSoP: global second-order pooling.

Gao, Xie, Wang, Li, CVPR 2019, https://arxiv.org/abs/1811.12006

    Σ = covariance over S of relu(BN(conv1x1 x)), c×c;   x · σ(W rowconv(BN(Σ)))
"""

from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Gate, Init, expand_as, positive, run_wide, wide, without_float16, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank


class GSoP(Gate):
    """Global second-order pooling: one weight per channel, from the covariance of channels.

    Args:
        channels: number of input channels C.
        hidden: c, channels whose covariance is computed; at most C. The paper uses 128.
        ndim: 2 for images, 3 for clips.
        official: apply a ReLU before pooling and, with 256 channels or fewer (a bottleneck's in the first stage), use
            every second position along H and W only, as in the official code.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, 1, …).

    The row-wise convolution has four outputs per row of Σ, as in the official code, whose attention over positions and
    its fusions with this one are left out.

    Raises:
        ValueError: hidden below 1.

    Examples:
        >>> from cbam3d.attention import GSoP
        >>> block = GSoP(64, hidden=32)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(
        self, channels: int, hidden: int = 128, ndim: int = 3, init: Init = "paper", official: bool = False
    ) -> None:
        super().__init__(init)
        self.official, self.stride = official, 2 if official and channels <= 256 else 1
        self.ndim = check_ndim(ndim)
        positive("hidden", hidden)
        c = min(hidden, channels)
        self.reduce = nn.Sequential(CONV[ndim](channels, c, 1, bias=False), BATCH_NORM[ndim](c), nn.ReLU())
        self.row_norm = nn.BatchNorm1d(c)
        self.row_conv = nn.Conv1d(c, 4 * c, c, groups=c)
        self.last = nn.Linear(4 * c, channels)
        if self.identity_init:
            zero_(self.last)

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        seen = F.relu(x)[..., :: self.stride, :: self.stride] if self.official else x
        y = wide(self.reduce(seen).flatten(2))
        with without_float16(x):
            centred = (y - y.mean(2, keepdim=True)) * y.shape[2] ** -0.5
            covariance = (centred @ centred.transpose(1, 2)).to(wide(x).dtype)
        rows = run_wide(self.row_conv, run_wide(self.row_norm, covariance))
        return expand_as(run_wide(self.last, rows.flatten(1)), x)
