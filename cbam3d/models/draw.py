"""The recurrent classifier of DRAW: at each step it reads a patch where its state wants to look.

Gregor, Danihelka, Graves, Rezende, Wierstra, ICML 2015, https://arxiv.org/abs/1502.04623, section on cluttered MNIST.
The generative model of the paper is not here.

    h, m = LSTM(read(x), h, m), each patch where h says;   logits = W h after the last step
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from cbam3d.attention.filterbank import filterbank, read
from cbam3d.attention.gate import positive
from cbam3d.attention.nd import as_tuple, at_least_float32, check_ndim, check_rank


class DRAW(nn.Module):
    """A classifier that reads a few patches by Gaussian filters.

    Args:
        num_classes: size of the logits.
        ndim: 2 or 3.
        in_channels: channels of the input.
        patch: filters along each axis: an int, or one per axis.
        num_glimpses: patches that are read.
        dim: channels of the state.

    Shapes: (N, in_channels, *S) -> (N, num_classes).

    From the state follow, linearly, the centre along every axis (from the first to the last position for -1 to 1), and
    the logarithms of the variance, of the stride and of the gain, as in the paper: stride exp(·) (S - 1) / (patch - 1)
    along each axis, so that 0 covers the whole input. The filters along T, H and W have one variance and one stride.

    Examples:
        >>> from cbam3d.models.draw import DRAW
        >>> model = DRAW(10, patch=8, num_glimpses=4, dim=64)
        >>> model(torch.randn(2, 3, 60, 60)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        ndim: int = 2,
        in_channels: int = 3,
        patch: int | Sequence[int] = 12,
        num_glimpses: int = 8,
        dim: int = 256,
    ) -> None:
        super().__init__()
        self.ndim, self.patch = check_ndim(ndim), as_tuple(patch, ndim)
        positive("patch, num_glimpses and dim", *self.patch, num_glimpses, dim)
        self.num_glimpses = num_glimpses
        self.look = nn.Linear(dim, ndim + 3)
        self.cell = nn.LSTMCell(in_channels * torch.Size(self.patch).numel(), dim)
        self.fc = nn.Linear(dim, num_classes)

    def filters(self, state: Tensor, size: torch.Size) -> tuple[list[Tensor], Tensor]:
        """The filters of every axis, (N, patch, length), and the gain, (N,), that a state (N, dim) asks for."""
        *centres, variance, stride, gain = at_least_float32(self.look(state)).unbind(1)
        banks = []
        for centre, count, length in zip(centres, self.patch, size, strict=True):
            widest = (length - 1) / max(1, count - 1)
            place = (centre + 1) * (length - 1) / 2
            banks.append(filterbank(place, stride.exp() * widest, variance.exp(), count, length))
        return banks, gain.exp()

    def forward(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        state = memory = x.new_zeros(x.shape[0], self.cell.hidden_size)
        for _ in range(self.num_glimpses):
            banks, gain = self.filters(state, x.shape[2:])
            state, memory = self.cell(read(x, banks, gain).flatten(1), (state, memory))
        return self.fc(state)
