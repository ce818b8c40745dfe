"""Non-local blocks.

Wang, Girshick, Gupta, He, CVPR 2018, https://arxiv.org/abs/1711.07971

    x + BN(W y),   y_i = Σ_j f(x_i, x_j) g(x_j),   f = softmax_j(θ(x_i)·φ(x_j)) or θ(x_i)·φ(x_j) / (number of j)
"""

from typing import Literal

from torch import Tensor, nn

from cbam3d.attention.gate import Init, check_init, hidden_channels, one_of, run_wide, wide, without_float16, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, MAX_POOL, check_ndim, check_rank, per_frame
from cbam3d.attention.tokens import as_features, as_tokens, attend


class NonLocal(nn.Module):
    """Non-local block: every position attends to all others.

    Args:
        channels: number of input channels C.
        reduction: θ, φ and g have `max(1, channels // reduction)` channels.
        mode: "gaussian" (the embedded Gaussian, softmax) or "dot_product".
        scaled: divide θ·φ by the square root of their channels before the softmax, as Facebook's code
            (video-nonlocal-net) does; the paper does not.
        subsample: max pooling by 2 along H and W after φ and g, the saving of three quarters that the paper has in all
            its experiments (Facebook's code pools before them; AlexHex7's drops the last row and column of odd sides,
            which are kept here).
        ndim: 2 for images, 3 for clips.
        init: no effect: BN starts at 0 as in the paper, so that the block starts as the identity.

    Shapes: (N, C, *S) -> the same.

    The other weights start as PyTorch's do; Facebook's code draws them with a standard deviation of 0.01. The paper's
    Gaussian without embedding and its concatenation are left out.

    Memory and time grow with |S|² (with subsample |S|²/4), |S| = T·H·W: for clips use `subsample=True`, late stages,
    or `criss_cross`. PyTorch's fused kernels reduce the memory, not the time, of "gaussian" to |S|.

    Raises:
        ValueError: an unknown mode.

    Examples:
        >>> from cbam3d.attention import NonLocal
        >>> block = NonLocal(64, subsample=True)
        >>> block(torch.randn(2, 64, 4, 8, 8)).shape
        torch.Size([2, 64, 4, 8, 8])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 2,
        mode: Literal["gaussian", "dot_product"] = "gaussian",
        subsample: bool = False,
        ndim: int = 3,
        init: Init = "paper",
        scaled: bool = False,
    ) -> None:
        super().__init__()
        check_init(init)
        self.ndim = check_ndim(ndim)
        self.mode = one_of("mode", mode, "gaussian", "dot_product")
        hidden = hidden_channels(channels, reduction)
        self.scale = hidden**-0.5 if scaled else 1.0
        self.theta, self.phi, self.g = (CONV[ndim](channels, hidden, 1) for _ in range(3))
        self.pool = MAX_POOL[ndim](per_frame(2, ndim), ceil_mode=True) if subsample else nn.Identity()
        self.out = CONV[ndim](hidden, channels, 1)
        self.norm = BATCH_NORM[ndim](channels)
        zero_(self.norm)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        query, key, value = (as_tokens(part) for part in (self.theta(x), self.pool(self.phi(x)), self.pool(self.g(x))))
        if self.mode == "gaussian":
            y = self.norm(self.out(as_features(attend(query, key, value, scale=self.scale), x.shape[2:])))
        else:
            with without_float16(x):
                y = wide(query) @ (wide(key).transpose(1, 2) @ wide(value) / key.shape[1])
            y = run_wide(self.norm, run_wide(self.out, as_features(y, x.shape[2:])))
        return x + y.to(x.dtype)
