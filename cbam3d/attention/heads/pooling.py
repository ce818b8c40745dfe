"""Attention pooling: learned queries attend over all positions of the features.

Cross-attention as in DETR's decoder (Carion et al., ECCV 2020, https://arxiv.org/abs/2005.12872), but positions are in
the values, too, and there is nothing else of its layers; where wanted after encoder blocks of ViT (Dosovitskiy et al.,
ICLR 2021, https://arxiv.org/abs/2010.11929). Also known as attentive probe.

    t = W norm(x) + p, one token a position;   t = encoder(t);   o_q = softmax(q kᵀ / √d) v, heads apart
    logits = V norm(mean_q o_q)
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import positive
from cbam3d.attention.nd import spatial_axes


class AttentionPooling(nn.Module):
    """Attention pooling and a linear layer.

    Args:
        channels: of the features.
        num_classes: K.
        num_queries: learned queries; their results are averaged.
        num_heads: of every attention; divides dim.
        num_layers: encoder blocks before the pooling, in which positions attend to each other: 0 for none.
        dim: channels of the tokens; None for those of the features.
        positional: add the position along every axis (T, H, W) to the tokens, by sines and cosines. Without it and
            without layers the result does not depend on the order of frames.
        dropout: probability, within the encoder blocks and before the last layer.

    Shapes: (N, channels, *S), of any rank -> logits (N, K).

    Raises:
        ValueError: a number below 1 (of layers, below 0), or heads that do not divide dim; from `forward`, a dim of
            fewer than two channels for each axis of positions.

    Examples:
        >>> from cbam3d.attention.heads import AttentionPooling
        >>> head = AttentionPooling(512, num_classes=10, num_queries=4, num_layers=1)
        >>> head(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        num_queries: int = 1,
        num_heads: int = 8,
        num_layers: int = 0,
        dim: int | None = None,
        positional: bool = True,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        dim = channels if dim is None else dim
        positive("num_queries, num_heads and dim", num_queries, num_heads, dim)
        if num_layers < 0:
            raise ValueError(f"num_layers must be at least 0, got {num_layers}")
        if dim % num_heads:
            raise ValueError(f"num_heads must divide the {dim} channels of the tokens, got {num_heads}")
        self.positional = positional
        self.norm = nn.LayerNorm(channels)
        self.tokens = nn.Identity() if dim == channels else nn.Linear(channels, dim)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(dim, num_heads, 4 * dim, dropout, "gelu", batch_first=True, norm_first=True)
            for _ in range(num_layers)
        )
        self.queries = nn.Parameter(nn.init.trunc_normal_(torch.empty(num_queries, dim), std=0.02))
        self.attention = nn.MultiheadAttention(dim, num_heads, batch_first=True)
        self.classifier = nn.Sequential(nn.LayerNorm(dim), nn.Dropout(dropout), nn.Linear(dim, num_classes))

    def attention_map(self, x: Tensor) -> Tensor:
        """How much the queries attend to each position, (N, 1, *S), 1 on average over the positions."""
        _, weights = self._pool(x, need_weights=True)
        weights = weights.mean(1) * weights.shape[2]
        return weights.reshape(x.shape[0], 1, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        pooled, _ = self._pool(x, need_weights=False)
        return self.classifier(pooled.mean(1))

    def _pool(self, x: Tensor, need_weights: bool) -> tuple[Tensor, Tensor]:
        """The result of every query, (N, Q, dim), and its weights, (N, Q, positions)."""
        spatial_axes(x)
        tokens = self.tokens(self.norm(x.flatten(2).transpose(1, 2)))
        if self.positional:
            tokens = tokens + positional_encoding(x.shape[2:], tokens.shape[2]).to(tokens).flatten(1).T
        for block in self.encoder:
            tokens = block(tokens)
        queries = self.queries.expand(x.shape[0], -1, -1)
        return self.attention(queries, tokens, tokens, need_weights=need_weights)


def positional_encoding(size: torch.Size | tuple[int, ...], dim: int) -> Tensor:
    """Sines and cosines of the position along every axis, (dim, *size) (Vaswani et al., NeurIPS 2017,
    https://arxiv.org/abs/1706.03762).

    Every axis has an equal, even share of the channels; those left are 0.

    Raises:
        ValueError: fewer than two channels an axis.
    """
    share = dim // len(size) // 2 * 2
    if share == 0:
        raise ValueError(f"positions along {len(size)} axes need a dim of at least {2 * len(size)}, got {dim}")
    code = torch.zeros(dim, *size)
    frequencies = 10_000 ** (-torch.arange(0, share, 2) / share)
    for axis, length in enumerate(size):
        angles = frequencies[:, None] * torch.arange(length)  # (share / 2, length)
        along = torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
        shape = [share, *(length if i == axis else 1 for i in range(len(size)))]
        code[axis * share : (axis + 1) * share] = along.reshape(shape)
    return code
