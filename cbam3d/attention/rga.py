"""RGA: relation-aware global attention.

Zhang, Lan, Zeng, Jin, Chen, CVPR 2020, https://arxiv.org/abs/1904.02998

    r_ij = θ(x_i)·φ(x_j);   a_i = σ(W [mean ψ(x_i) ; ν([r_i1 … r_in ; r_1i … r_ni])]);   x_i · a_i

with positions as the nodes i (spatial), then with channels as the nodes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Gate, Init, hidden_channels, positive, run_wide, without_float16, zero_
from cbam3d.attention.nd import as_tuple, check_ndim, check_rank, pool_to_grid
from cbam3d.attention.tokens import as_tokens


class RGA(nn.Module):
    """Relation-aware global attention: each position, then each channel, is weighted by its relations to all others.

    Args:
        channels: number of input channels C.
        grid: size that the features are first pooled to, as a node has as many relations as there are nodes;
            None for 7x7, for clips 4x7x7.
        reduction: θ, φ and ψ have 1/reduction of a node's features, ν 1/reduction of the number of nodes, at least
            one channel each.
        ndim: 2 for images, 3 for clips.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same.

    In the paper the features have a fixed size, which is the grid; here the spatial map is interpolated (nearest) to
    the features' size. Memory grows with the squared numbers of nodes, C² and grid².

    Examples:
        >>> from cbam3d.attention import RGA
        >>> block = RGA(64, grid=(2, 4, 4))
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(
        self,
        channels: int,
        grid: int | Sequence[int] | None = None,
        reduction: int = 8,
        ndim: int = 3,
        init: Init = "paper",
    ) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        self.grid = (4, 7, 7)[-ndim:] if grid is None else as_tuple(grid, ndim)
        positive("grid", *self.grid)
        self.spatial = _SpatialRelations(channels, self.grid, reduction, init)
        self.channel = _ChannelRelations(channels, self.grid, reduction, init)

    def attention_maps(self, x: Tensor) -> dict[str, Tensor]:
        """The maps "spatial", (N, 1, *S), and "channel", (N, C, 1, …)."""
        check_rank(x, self.ndim)
        spatial = self.spatial.attention_map(x)
        return {"spatial": spatial, "channel": self.channel.attention_map(x * spatial)}

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        return self.channel(self.spatial(x))


class _Relations(Gate):
    """Attention over nodes: (N, nodes, features) -> logits (N, nodes).

    Args:
        num_nodes, num_features: of the input.
        grid: of the positions.
        reduction: of every embedding.
        init: as in `Gate`.
    """

    def __init__(self, num_nodes: int, num_features: int, grid: tuple[int, ...], reduction: int, init: Init) -> None:
        super().__init__(init)
        self.grid = grid
        inner, joint = hidden_channels(num_features, reduction), hidden_channels(num_nodes, reduction)
        self.theta, self.phi, self.psi = (_embed(num_features, inner) for _ in range(3))
        self.nu = _embed(2 * num_nodes, joint)
        hidden = hidden_channels(1 + joint, reduction)
        self.last = nn.Sequential(_embed(1 + joint, hidden), nn.Conv1d(hidden, 1, 1, bias=False), nn.BatchNorm1d(1))
        if self.identity_init:
            zero_(self.last[2])

    def weigh(self, nodes: Tensor) -> Tensor:
        nodes = nodes.transpose(1, 2)  # features first, as Conv1d expects
        theta, phi, psi = (run_wide(embed, nodes) for embed in (self.theta, self.phi, self.psi))
        with without_float16(nodes):
            relations = theta.transpose(1, 2) @ phi  # r_ij in row i
        both = torch.cat([relations.transpose(1, 2), relations], 1)  # channel j of node i: r_ij, then r_ji
        own = psi.mean(1, keepdim=True)
        return run_wide(self.last, torch.cat([own, run_wide(self.nu, both)], 1))[:, 0]


class _SpatialRelations(_Relations):
    """RGA-S: the nodes are the positions of the grid, their features the channels."""

    def __init__(self, channels: int, grid: tuple[int, ...], reduction: int, init: Init) -> None:
        super().__init__(torch.Size(grid).numel(), channels, grid, reduction, init)

    def logits(self, x: Tensor) -> Tensor:
        pooled = pool_to_grid(x, self.grid)
        weights = self.weigh(as_tokens(pooled))
        return F.interpolate(weights.reshape(x.shape[0], 1, *self.grid), size=x.shape[2:])


class _ChannelRelations(_Relations):
    """RGA-C: the nodes are the channels, their features the positions of the grid."""

    def __init__(self, channels: int, grid: tuple[int, ...], reduction: int, init: Init) -> None:
        super().__init__(channels, torch.Size(grid).numel(), grid, reduction, init)

    def logits(self, x: Tensor) -> Tensor:
        pooled = pool_to_grid(x, self.grid)
        weights = self.weigh(pooled.flatten(2))
        return weights.reshape(*weights.shape, *(1,) * len(self.grid))


def _embed(in_channels: int, out_channels: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, ReLU."""
    return nn.Sequential(nn.Conv1d(in_channels, out_channels, 1, bias=False), nn.BatchNorm1d(out_channels), nn.ReLU())
