"""RAM: recurrent attention model.

Mnih, Heess, Graves, Kavukcuoglu, NeurIPS 2014, https://arxiv.org/abs/1406.6247

    ρ = patches around l_t at several scales;   g = relu(A relu(P ρ) + B relu(Q l_t));   h = relu(W h + V g)
    l_{t+1} ~ N(tanh(L h), σ²);   logits = C h after the last glimpse
    loss = cross-entropy + sum_t (R - b_t)² - sum_t (R - b_t) log p(l_t),   R = 1 for the right class, b_t from h
"""

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import positive
from cbam3d.attention.interpolation import sample
from cbam3d.attention.nd import as_tuple, check_ndim, check_rank, windowed_mean


class Glimpses(NamedTuple):
    """What RAM puts out in training, with T glimpses.

    Examples:
        >>> from cbam3d.models.ram import RAM
        >>> glimpses = RAM(10, num_glimpses=4, dim=64)(torch.randn(2, 3, 60, 60))  # while it trains
        >>> glimpses.logits.shape[-1]
        10
    """

    logits: Tensor  # (N, K)
    log_probabilities: Tensor  # of the locations that were drawn, (N, T - 1)
    baselines: Tensor  # (N, T - 1)

    def loss(self, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
        """The sum over the batch of cross-entropy, REINFORCE's loss, and the baselines' squared errors.

        Args:
            targets: classes (N,), or their probabilities (N, K).
            label_smoothing: of the cross-entropy.
        """
        classes = targets.argmax(1) if targets.is_floating_point() else targets
        reward = (self.logits.argmax(1) == classes).to(self.baselines.dtype)[:, None]
        errors = reward - self.baselines
        policy = -(errors.detach() * self.log_probabilities).sum()
        guess = F.cross_entropy(self.logits, targets, label_smoothing=label_smoothing, reduction="sum")
        return guess + policy + errors.square().sum()


class RAM(nn.Module):
    """A classifier that sees a few glimpses, at places which it chooses.

    Args:
        num_classes: size of the logits.
        ndim: 2 or 3.
        in_channels: channels of the input.
        patch: positions of a glimpse along each axis: an int, or one per axis.
        num_scales: patches of a glimpse; each covers twice as much along every axis as the one before.
        num_glimpses: T, at least 2.
        dim: channels of the state.
        std: σ, of locations from -1 to 1 along each axis, in training.
        policy: "learned", or "random": uniform locations, to compare with.

    Shapes: (N, in_channels, *S) -> (N, num_classes); in training `Glimpses`, whose `loss` the training loop takes.

    Glimpses begin in the middle. In evaluation each location is the mean of its distribution; random ones are drawn
    there, too, from PyTorch's generator. Locations of clips are
    (t, y, x). Beyond the edges patches are 0.

    Examples:
        >>> from cbam3d.models.ram import RAM
        >>> model = RAM(10, patch=8, num_scales=2, num_glimpses=4, dim=64).eval()
        >>> model(torch.randn(2, 3, 60, 60)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        ndim: int = 2,
        in_channels: int = 3,
        patch: int | Sequence[int] = 8,
        num_scales: int = 3,
        num_glimpses: int = 6,
        dim: int = 256,
        std: float = 0.2,
        policy: Literal["learned", "random"] = "learned",
    ) -> None:
        super().__init__()
        self.ndim, self.patch = check_ndim(ndim), as_tuple(patch, ndim)
        positive("patch, num_scales, num_glimpses and dim", *self.patch, num_scales, num_glimpses, dim)
        if policy not in ("learned", "random"):
            raise ValueError(f'policy must be "learned" or "random", got {policy!r}')
        if num_glimpses < 2:
            raise ValueError("num_glimpses must be at least 2: the first is in the middle, the others are chosen")
        if std <= 0:
            raise ValueError(f"std must be above 0, got {std}")
        self.num_scales, self.num_glimpses, self.std, self.policy = num_scales, num_glimpses, std, policy
        values = in_channels * num_scales * torch.Size(self.patch).numel()
        self.what, self.where = nn.Linear(values, dim // 2), nn.Linear(ndim, dim // 2)
        self.join = nn.ModuleList(nn.Linear(dim // 2, dim) for _ in range(2))
        self.cell = nn.RNNCell(dim, dim, nonlinearity="relu")
        self.locate, self.baseline = nn.Linear(dim, ndim), nn.Linear(dim, 1)
        self.fc = nn.Linear(dim, num_classes)

    def glimpse(self, x: Tensor, location: Tensor) -> Tensor:
        """Patches of all scales around locations (N, axes): (N, scales · C, *patch)."""
        lines = [torch.arange(n, device=x.device) - (n - 1) / 2 for n in self.patch]
        grid = torch.stack(torch.meshgrid(*lines, indexing="ij"), dim=-1)
        patches = []
        for scale in range(self.num_scales):
            pool = [min(2**scale, side) for side in x.shape[2:]]
            left = [-side % step for side, step in zip(x.shape[2:], pool, strict=True)]
            level = windowed_mean(x, pool, pool, [0] * self.ndim, left) if scale else x
            size = torch.tensor([side / step for side, step in zip(x.shape[2:], pool, strict=True)], device=x.device)
            centre = (location + 1) / 2 * size - 0.5
            patches.append(sample(level, centre.reshape(-1, *(1,) * self.ndim, self.ndim) + grid))
        return torch.cat(patches, dim=1)

    def forward(self, x: Tensor) -> "Tensor | Glimpses":
        check_rank(x, self.ndim)
        state = x.new_zeros(x.shape[0], self.cell.hidden_size)
        location = x.new_zeros(x.shape[0], self.ndim, dtype=torch.float32)
        chances, baselines = [], []
        for step in range(self.num_glimpses):
            if step:
                location, chance = self._next(torch.tanh(self.locate(state.detach()).float()))
                chances.append(chance)
                baselines.append(self.baseline(state.detach()).squeeze(1).float())
            what = F.relu(self.what(self.glimpse(x, location).flatten(1)))
            where = F.relu(self.where(location.to(what.dtype)))
            state = self.cell(F.relu(self.join[0](what) + self.join[1](where)), state)
        logits = self.fc(state)
        if not self.training:
            return logits
        return Glimpses(logits, torch.stack(chances, dim=1), torch.stack(baselines, dim=1))

    def _next(self, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Locations, (N, axes), and the logarithms of their densities, (N,), where these are learned."""
        if self.policy == "random":
            return torch.rand_like(mean) * 2 - 1, mean.sum(1) * 0
        if not self.training:
            return mean, mean.sum(1) * 0
        drawn = (mean + self.std * torch.randn_like(mean)).detach()
        return drawn.clamp(-1, 1), log_normal(drawn, mean, self.std).sum(1)


def log_normal(x: Tensor, mean: Tensor, std: float) -> Tensor:
    """The logarithm of the normal density."""
    return -(x - mean).square() / (2 * std**2) - math.log(std * math.sqrt(2 * math.pi))
