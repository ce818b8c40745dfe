"""GC: global context.

Cao, Xu, Lin, Wei, Hu, ICCV workshops 2019, https://arxiv.org/abs/1904.11492

    c = Σ_j softmax_j(W_k x_j) x_j,   x + W2 relu(LN(W1 c))
"""

from torch import Tensor, nn

from cbam3d.attention.gate import Init, check_init, expand_as, hidden_channels, zero_
from cbam3d.attention.nd import CONV, check_ndim, check_rank


class GC(nn.Module):
    """Global context: one context vector for all positions, added to each.

    Args:
        channels: number of input channels C.
        reduction: the hidden layer has `max(8, channels // reduction)` units; LayerNorm of very few is degenerate.
        ndim: 2 for images, 3 for clips.
        init: no effect: the last layer starts at 0, as in the official code.

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, 1, *S), which sums to 1.

    The official code can also multiply by the context in place of adding it, and pool without attention.

    Examples:
        >>> from cbam3d.attention import GC
        >>> x = torch.randn(2, 64, 8, 14, 14)
        >>> torch.equal(GC(64, init="identity")(x), x)
        True
    """

    def __init__(self, channels: int, reduction: int = 16, ndim: int = 3, init: Init = "paper") -> None:
        super().__init__()
        check_init(init)
        self.ndim = check_ndim(ndim)
        hidden = hidden_channels(channels, reduction, 8)
        self.key = CONV[ndim](channels, 1, 1)
        last = nn.Linear(hidden, channels)
        zero_(last)
        self.transform = nn.Sequential(nn.Linear(channels, hidden), nn.LayerNorm(hidden), nn.ReLU(), last)

    def attention_map(self, x: Tensor) -> Tensor:
        """Weight of each position in the context."""
        check_rank(x, self.ndim)
        return self.key(x).flatten(2).softmax(2).reshape(x.shape[0], 1, *x.shape[2:])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        weights = self.attention_map(x).flatten(1)
        context = (x.flatten(2) @ weights[:, :, None])[:, :, 0]
        return x + expand_as(self.transform(context), x).to(x.dtype)
