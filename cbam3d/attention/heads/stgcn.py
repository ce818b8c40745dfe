"""STGCN: a graph of patches in space and time.

Yang, Zheng, Yang, Chen, Tian, CVPR 2020,
https://openaccess.thecvf.com/content_CVPR_2020/html/Yang_Spatial-Temporal_Graph_Convolutional_Network_for_Video-Based_Person_Re-Identification_CVPR_2020_paper.html
Not the network of the same name for skeletons.

    nodes x_i: means of horizontal parts;   e_ij = φ(x_i)ᵀ φ(x_j);   A_ij = e_ij² / sum_j e_ij²
    x <- x + relu(D^-½ (A + I) D^-½ x W), for every layer;   D is 2 everywhere, as rows of A sum to 1
    temporal branch: nodes of all frames, their maximum;   structural: nodes of a frame, maximum, mean over frames
    logits = V [mean of x ; temporal ; structural]
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import hidden_channels, positive, wide, without_float16
from cbam3d.attention.nd import amax, as_clips, pool_to_grid


class STGCN(nn.Module):
    """Graph convolutions over patches: one graph of all frames, and one in each frame.

    Args:
        channels: of the features.
        num_classes: K.
        parts: horizontal parts of a frame, a patch each.
        num_layers: graph convolutions of each branch.
        reduction: φ has `max(1, channels // reduction)` channels.
        dropout: probability before the last layer.

    Shapes: (N, channels, T, H, W) -> logits (N, K). An image is a clip of one frame, (N, channels, T) its frames.

    The order of frames does not matter, nor that of parts. A node that is related to none, itself included, has degree
    1; it is treated as the others. Memory grows with (T · parts)².

    Examples:
        >>> from cbam3d.attention.heads import STGCN
        >>> head = STGCN(512, num_classes=10, parts=7, num_layers=1)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        parts: int = 4,
        num_layers: int = 2,
        reduction: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        positive("parts and num_layers", parts, num_layers)
        self.parts = parts
        self.temporal, self.structural = (GraphBranch(channels, num_layers, reduction) for _ in range(2))
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Linear(3 * channels, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        x = as_clips(x)
        patches = pool_to_grid(x, (x.shape[2], self.parts, 1)).flatten(3).permute(0, 2, 3, 1)  # (N, T, parts, C)
        temporal = amax(self.temporal(patches.flatten(1, 2)), [1])
        structural = amax(self.structural(patches.flatten(0, 1)), [1]).unflatten(0, (-1, x.shape[2])).mean(1)
        found = torch.cat([x.mean((2, 3, 4)), temporal.to(x.dtype), structural.to(x.dtype)], dim=1)
        return self.classifier(self.dropout(found))


class GraphBranch(nn.Module):
    """Graph convolutions with residual connections: nodes (N, P, C) -> the same."""

    def __init__(self, channels: int, num_layers: int, reduction: int) -> None:
        super().__init__()
        self.relate = nn.Linear(channels, hidden_channels(channels, reduction), bias=False)
        self.layers = nn.ModuleList(nn.Linear(channels, channels, bias=False) for _ in range(num_layers))

    def adjacency(self, nodes: Tensor) -> Tensor:
        """A, (N, P, P): how much each node takes from the others, 1 in sum."""
        related = wide(self.relate(nodes))
        with without_float16(nodes):
            least = torch.finfo(related.dtype).tiny
            related = related / related.detach().abs().amax((1, 2), keepdim=True).clamp_min(least)  # it cancels
            squares = (related @ related.transpose(1, 2)).square()
            return squares / squares.sum(2, keepdim=True).clamp_min(least)

    def forward(self, nodes: Tensor) -> Tensor:
        adjacency = self.adjacency(nodes).to(nodes.dtype)
        for layer in self.layers:
            mixed = (adjacency @ nodes + nodes) / 2
            nodes = nodes + torch.relu(layer(mixed)).to(nodes.dtype)
        return nodes
