"""SAN: the self-attention blocks of "Exploring Self-attention for Image Recognition".

Zhao, Jia, Koltun, CVPR 2020, https://arxiv.org/abs/2004.13621

    y_i = sum_j α_ij ⊙ β(x_j),   j in the window around i;   out = x + W relu(BN(y))
    pairwise:    α_i· = softmax_j γ([δ(φ(x_i), ψ(x_j)); p_i - p_j]),   δ a difference, sum, product or concatenation
    patchwise:   α_i· = γ([φ(x_i); ψ(x_j) of all j]), or of the products φ(x_i)ᵀψ(x_j)
"""

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Init, check_init, hidden_channels, positive, run_wide, wide, without_float16, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank
from cbam3d.attention.neighbourhoods import inside, window_size, windows

Form = Literal["pairwise", "patchwise"]
RELATIONS = {
    "pairwise": ("subtraction", "summation", "product", "concatenation"),
    "patchwise": ("concatenation", "product"),
}


class SAN(nn.Module):
    """Vector self-attention: the weights of a window differ between groups of channels.

    Args:
        channels: number of input channels C.
        form: "pairwise": each weight follows from two positions; "patchwise": from the whole window at once.
        relation: of a pairwise block "subtraction", "summation", "product" or "concatenation"; of a patchwise one
            "concatenation", or "product" (the paper's star product). None for subtraction and concatenation.
        kernel_size: of the window, odd: an int for H and W, with one frame of a clip; or one int per axis.
        reduction: β has `max(1, channels // reduction)` channels, φ and ψ have a quarter of them.
        group_channels: so many channels of β share their weights; where it does not divide their number, one.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity": the last layer starts at 0.

    Shapes: (N, C, *S) -> the same.

    Pairwise, p is a learned linear map of coordinates from -1 to 1 along every axis, and positions beyond the edges
    have no weight, where the official code reflects the features (in training the BatchNorms of γ see the features of
    the border there). Patchwise, features beyond the edges are 0. The official code also has BatchNorm and ReLU before
    the block. The clique product, a relation of all pairs in a window, is left out. Time and memory grow with |S| times
    the window.

    Raises:
        ValueError: an unknown form or relation, an even kernel size, or a number below 1.

    Examples:
        >>> from cbam3d.attention import SAN
        >>> block = SAN(64, form="patchwise", kernel_size=(1, 3, 3))
        >>> block(torch.randn(1, 64, 4, 7, 7)).shape
        torch.Size([1, 64, 4, 7, 7])
    """

    def __init__(
        self,
        channels: int,
        form: Form = "pairwise",
        relation: str | None = None,
        kernel_size: int | Sequence[int] = 7,
        reduction: int = 4,
        group_channels: int = 8,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        if form not in RELATIONS:
            raise ValueError(f'form must be "pairwise" or "patchwise", got {form!r}')
        self.form, self.relation = form, relation or RELATIONS[form][0]
        if self.relation not in RELATIONS[form]:
            raise ValueError(f"relation of a {form} block must be {' or '.join(RELATIONS[form])}, got {relation!r}")
        positive("group_channels", group_channels)
        self.window = window_size(kernel_size, ndim)
        width = hidden_channels(channels, reduction)
        related = hidden_channels(width, 4)
        self.groups = width // group_channels if width % group_channels == 0 else width
        conv, norm = CONV[ndim], BATCH_NORM[ndim]
        self.phi, self.psi = conv(channels, related, 1), conv(channels, related, 1)
        self.beta = conv(channels, width, 1)
        count = torch.Size(self.window).numel()
        if form == "pairwise":
            self.place = conv(ndim, ndim, 1, bias=False)
            inputs = related * (1 + (self.relation == "concatenation")) + ndim
            hidden, outputs = related, self.groups
        else:
            inputs = count if self.relation == "product" else related * (1 + count)
            hidden, outputs = self.groups, self.groups * count
        self.gamma = nn.Sequential(
            norm(inputs),
            nn.ReLU(),
            conv(inputs, hidden, 1, bias=False),
            norm(hidden),
            nn.ReLU(),
            conv(hidden, outputs, 1),
        )
        self.expand = nn.Sequential(norm(width), nn.ReLU(), conv(width, channels, 1))
        if check_init(init):
            zero_(self.expand[2])

    def _attention(self, x: Tensor) -> Tensor:
        """The weights α, (N, groups, *S, *window)."""
        phi, psi = wide(self.phi(x)), wide(self.psi(x))
        with without_float16(x):
            psi = windows(psi, self.window, "constant" if self.form == "patchwise" else "replicate")
            return self._patchwise(phi, psi) if self.form == "patchwise" else self._pairwise(phi, psi)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        weights = self._attention(x)
        values = windows(self.beta(x), self.window).unflatten(1, (self.groups, -1))
        axes = "tyx"[-self.ndim :]
        window = axes.upper()
        out = torch.einsum(f"ng{axes}{window},ngc{axes}{window}->ngc{axes}", weights.to(values.dtype), values)
        return x + self.expand(out.flatten(1, 2)).to(x.dtype)

    def _pairwise(self, phi: Tensor, psi: Tensor) -> Tensor:
        phi = phi.unflatten(-1, (-1, *(1,) * self.ndim)).expand_as(psi)
        relation = {
            "subtraction": lambda: phi - psi,
            "summation": lambda: phi + psi,
            "product": lambda: phi * psi,
            "concatenation": lambda: torch.cat([phi, psi], dim=1),
        }[self.relation]()
        place = run_wide(self.place, coordinates(phi.shape[2 : 2 + self.ndim], phi))
        away = place.unflatten(-1, (-1, *(1,) * self.ndim)) - windows(place, self.window)
        pairs = torch.cat([relation, away.expand(phi.shape[0], *away.shape[1:]).to(relation.dtype)], dim=1)
        shape = pairs.shape[2:]
        # one long axis: every pair is a position of its own
        flat = pairs.flatten(2).unflatten(2, (-1, *(1,) * (self.ndim - 1)))
        scores = run_wide(self.gamma, flat).flatten(2).unflatten(2, shape)
        scores = scores.masked_fill(~inside(phi[..., *(0,) * self.ndim], self.window), -torch.inf)
        return scores.flatten(-self.ndim).softmax(-1).view(scores.shape)

    def _patchwise(self, phi: Tensor, psi: Tensor) -> Tensor:
        patch = psi.movedim(tuple(range(-self.ndim, 0)), tuple(range(2, 2 + self.ndim))).flatten(2, 1 + self.ndim)
        if self.relation == "product":
            inputs = (phi[:, :, None] * patch).sum(1)
        else:
            inputs = torch.cat([phi, patch.flatten(1, 2)], dim=1)
        weights = run_wide(self.gamma, inputs).unflatten(1, (self.groups, *self.window))
        return weights.movedim(tuple(range(2, 2 + self.ndim)), tuple(range(-self.ndim, 0)))


def coordinates(size: torch.Size, like: Tensor) -> Tensor:
    """Coordinates from -1 to 1 along every axis, 0 along one of a single position: (1, axes, *size)."""
    how = {"dtype": like.dtype, "device": like.device}
    lines = [torch.linspace(-1, 1, n, **how) if n > 1 else torch.zeros(1, **how) for n in size]
    return torch.stack(torch.meshgrid(*lines, indexing="ij"))[None]
