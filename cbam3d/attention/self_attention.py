"""Pooled self-attention: the basic module of STANet.

Chen, Shi, Remote Sensing 12(10), 2020, "A Spatial-Temporal Attention-Based Method and a New Dataset for Remote Sensing
Image Change Detection", https://doi.org/10.3390/rs12101662

    p = pool_ds x;   x + up(softmax(qᵀ k / √d) v),   q, k, v = conv1x1 p
"""

from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Init, check_init, hidden_channels, positive, zero_
from cbam3d.attention.nd import CONV, check_ndim, check_rank, per_frame, windowed_mean
from cbam3d.attention.tokens import as_features, as_tokens, attend


class SelfAttention(nn.Module):
    """Pooled self-attention: all positions attend to each other, optionally at a lower resolution.

    Args:
        channels: number of input channels C.
        pooling: ds: average pooling over ds×ds pixels first; 1 for none.
        reduction: q and k have `max(1, channels // reduction)` channels.
        ndim: 2 for images, 3 for clips: all frames of a clip attend to each other.
        init: "paper", or "identity": the values start at 0.

    Shapes: (N, C, *S) -> the same.

    Time grows with (|S| / ds²)², |S| = T·H·W; memory too, unless PyTorch has a fused kernel: for large features
    use pooling 2, 4 or 8, or `criss_cross`.

    Raises:
        ValueError: pooling below 1.

    Examples:
        >>> from cbam3d.attention import SelfAttention
        >>> block = SelfAttention(64, pooling=2)
        >>> block(torch.randn(2, 64, 4, 8, 8)).shape
        torch.Size([2, 64, 4, 8, 8])
    """

    def __init__(
        self, channels: int, pooling: int = 1, reduction: int = 8, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        positive("pooling", pooling)
        self.pooling = per_frame(pooling, ndim)
        self.hidden = hidden_channels(channels, reduction)
        self.query, self.key = (CONV[ndim](channels, self.hidden, 1) for _ in range(2))
        self.value = CONV[ndim](channels, channels, 1)
        if check_init(init):
            zero_(self.value)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        pools = max(self.pooling) > 1
        missing = [-side % r for side, r in zip(x.shape[2:], self.pooling, strict=True)]
        pooled = windowed_mean(x, self.pooling, self.pooling, [0] * self.ndim, missing) if pools else x
        query, key, value = (as_tokens(layer(pooled)) for layer in (self.query, self.key, self.value))
        out = as_features(attend(query, key, value, scale=self.hidden**-0.5), pooled.shape[2:])
        if pools:  # each pixel takes its window's value
            out = F.interpolate(out, scale_factor=[float(r) for r in self.pooling])
            out = out[(..., *(slice(side) for side in x.shape[2:]))]
        return x + out.to(x.dtype)
