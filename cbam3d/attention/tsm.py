"""TSM: temporal shift module.

Lin, Gan, Han, ICCV 2019, https://arxiv.org/abs/1811.08383

    out_t = x_{t+1} in the first share of the channels, x_{t-1} in the second, x_t in the rest; 0 beyond the ends
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.attention.gate import Blend, Init
from cbam3d.attention.nd import check_clips, check_rank


class TSM(Blend):
    """Temporal shift: some channels are those of the next or the previous frame. It has no weights.

    Args:
        channels: number of input channels C.
        share: of the channels that are shifted in each direction, 0 … 0.5; rounded down to whole channels.
        bidirectional: False takes channels of earlier frames only, for streams: the first share, shifted once.
        init: "paper", or "identity": the shift blends in from 0 (see `Blend`).
        ndim: 3; images have no time axis.

    Shapes: (N, C, T, H, W) -> the same.

    The paper shifts the input of a residual branch; inserted at "residual", its output is shifted.

    Raises:
        ValueError: ndim other than 3, or a share out of range.

    Examples:
        >>> from cbam3d.attention import TSM
        >>> clip = torch.zeros(1, 8, 3, 1, 1)
        >>> clip[:, :, 1] = 1  # the second of three frames
        >>> TSM(8, share=0.25)(clip).flatten(2).sum(1)[0].tolist()  # two channels come from each neighbour
        [2.0, 4.0, 2.0]
    """

    ranks = (3,)

    def __init__(
        self, channels: int, share: float = 0.125, bidirectional: bool = True, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__(init)
        check_clips("tsm", ndim)
        self.fold, self.bidirectional = fold_of(channels, share), bidirectional

    def transform(self, x: Tensor) -> Tensor:
        check_rank(x, 3)
        return shift(x, self.fold, self.bidirectional)


def fold_of(channels: int, share: float) -> int:
    """How many channels a share of them is; raises ValueError for a share out of 0 … 0.5."""
    if not 0 <= share <= 0.5:
        raise ValueError(f"share must be between 0 and 0.5, got {share}")
    return int(channels * share)


def shift(x: Tensor, fold: int, bidirectional: bool = True) -> Tensor:
    """Shift `fold` channels by a frame in each direction, (N, C, T, H, W) -> the same."""
    if not bidirectional:
        return torch.cat([_later(x[:, :fold]), x[:, fold:]], dim=1)
    return torch.cat([_earlier(x[:, :fold]), _later(x[:, fold : 2 * fold]), x[:, 2 * fold :]], dim=1)


def _earlier(x: Tensor) -> Tensor:
    """Each frame becomes the next one, the last 0."""
    return F.pad(x[:, :, 1:], [0, 0, 0, 0, 0, 1])


def _later(x: Tensor) -> Tensor:
    """Each frame becomes the previous one, the first 0."""
    return F.pad(x[:, :, :-1], [0, 0, 0, 0, 1, 0])
