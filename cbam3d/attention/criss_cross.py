"""Criss-cross attention.

Huang, Wang, Wei, Huang, Shi, Liu, Huang, ICCV 2019, https://arxiv.org/abs/1811.11721

    x_i + γ Σ_j softmax_j(q_i·k_j) v_j,   j in the row and the column of i, in a clip also in its tube through time
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Init, check_init, hidden_channels, positive, wide, without_float16
from cbam3d.attention.nd import CONV, check_ndim, check_rank


class CrissCross(nn.Module):
    """Criss-cross attention: every position attends to those on its axes, repeatedly.

    Args:
        channels: number of input channels C.
        reduction: q and k have `max(1, channels // reduction)` channels.
        recurrence: passes with the same weights. As many as there are axes connect every position to every other: 2
            (the paper's) for images, 3 for clips.
        ndim: 2 for images, 3 for clips.
        init: no effect: γ starts at 0, and the block as the identity.

    Shapes: (N, C, *S) -> the same. Memory grows with |S| (T + H + W), not with |S|².

    Equal to the official code for images. For clips that code counts the position itself three times and misorients
    one map; here it counts once.

    Raises:
        ValueError: recurrence below 1.

    Examples:
        >>> from cbam3d.attention import CrissCross
        >>> block = CrissCross(64, recurrence=3)
        >>> block(torch.randn(2, 64, 4, 7, 7)).shape
        torch.Size([2, 64, 4, 7, 7])
    """

    def __init__(
        self, channels: int, reduction: int = 8, recurrence: int = 2, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__()
        check_init(init)
        self.ndim = check_ndim(ndim)
        positive("recurrence", recurrence)
        self.recurrence = recurrence
        hidden = hidden_channels(channels, reduction)
        self.query, self.key = (CONV[ndim](channels, hidden, 1) for _ in range(2))
        self.value = CONV[ndim](channels, channels, 1)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        for _ in range(self.recurrence):
            x = x + self.gamma.to(x.dtype) * self._cross(x).to(x.dtype)
        return x

    def _cross(self, x: Tensor) -> Tensor:
        query, key, value = wide(self.query(x)), wide(self.key(x)), self.value(x)
        axes, energies = range(2, x.ndim), []
        for axis in axes:
            with without_float16(x):
                energy = _lines(query, axis) @ _lines(key, axis).transpose(-1, -2)  # (N, …, L, L)
            if axis > 2:  # the position itself lies on every axis, and counts once
                itself = torch.eye(energy.shape[-1], dtype=torch.bool, device=x.device)
                energy = energy.masked_fill(itself, -torch.inf)
            energies.append(energy.movedim(-2, axis - 1))  # (N, *S, L)
        parts = torch.cat(energies, -1).softmax(-1).split([x.shape[axis] for axis in axes], -1)
        out = torch.zeros_like(x)
        for axis, weights in zip(axes, parts, strict=True):
            along = weights.movedim(axis - 1, -2).to(value.dtype) @ _lines(value, axis)  # (N, …, L, C)
            out = out + along.movedim((-1, -2), (1, axis)).to(x.dtype)
        return out


def _lines(x: Tensor, axis: int) -> Tensor:
    """(N, C, *S) -> (N, …, L, C): the lines along an axis."""
    return x.movedim((axis, 1), (-2, -1))
