"""BAM: bottleneck attention module.

Park, Woo, Lee, Kweon, BMVC 2018, https://arxiv.org/abs/1807.06514

    x · (1 + σ(Mc + Ms));   Mc = MLP(GAP x),   Ms = conv1x1, two dilated 3x3, conv1x1 to one channel
"""

from typing import Literal

from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, expand_as, hidden_channels, one_of, positive, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank, per_frame, same_padding
from cbam3d.attention.ops.gating import mean_positions


class BAM(Gate):
    """Bottleneck attention: a channel map and a position map, added.

    Args:
        channels: number of input channels C.
        reduction: both branches have `max(1, channels // reduction)` hidden channels.
        combine: "sum" of the two maps before σ, the paper's; or "product", the official code's.
        dilation: of the two 3x3 convolutions, along H and W; in clips they also span three frames.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, *S), in (1, 2), or (0, 2) with init="identity".

    The official code multiplies the maps, 1 + σ(Mc · Ms). Both branches contain BatchNorm, as there, which
    needs more than one sample in training.

    Examples:
        >>> from cbam3d.attention import BAM
        >>> block = BAM(64, dilation=2)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    base = 1.0

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        dilation: int = 4,
        ndim: int = 3,
        init: Init = "paper",
        combine: Literal["sum", "product"] = "sum",
    ) -> None:
        super().__init__(init)
        self.combine = one_of("combine", combine, "sum", "product")
        self.ndim = check_ndim(ndim)
        positive("dilation", dilation)
        hidden = hidden_channels(channels, reduction)
        conv, norm, apart = CONV[ndim], BATCH_NORM[ndim], per_frame(dilation, ndim)
        last_channel, last_spatial = nn.Linear(hidden, channels), conv(hidden, 1, 1)
        if self.identity_init:
            zero_(last_spatial)
            if combine == "sum":  # a product of two zeros would pass no gradient
                zero_(last_channel)
        self.channel = nn.Sequential(nn.Linear(channels, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), last_channel)
        steps = [conv(channels, hidden, 1), norm(hidden), nn.ReLU()]
        for _ in range(2):
            dilated = conv(hidden, hidden, 3, padding=same_padding(3, ndim, apart), dilation=apart)
            steps += [dilated, norm(hidden), nn.ReLU()]
        self.spatial = nn.Sequential(*steps, last_spatial)

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        channel, spatial = expand_as(self.channel(mean_positions(x)), x), self.spatial(x)
        return channel + spatial if self.combine == "sum" else channel * spatial
