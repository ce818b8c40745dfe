"""SE: squeeze and excitation.

Hu, Shen, Sun, CVPR 2018, https://arxiv.org/abs/1709.01507

    x · σ(W2 relu(W1 GAP x))
"""

from torch import Tensor

from cbam3d.attention.gate import Gate, Init, channel_mlp, expand_as
from cbam3d.attention.ops.gating import mean_positions


class SE(Gate):
    """Squeeze and excitation: one weight per channel.

    Args:
        channels: number of input channels C.
        reduction: the hidden layer has `max(1, channels // reduction)` units.
        bias: biases in both layers, as in timm and torchvision; the paper omits them.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, 1, …).

    Raises:
        ValueError: channels or reduction below 1.

    Examples:
        >>> from cbam3d.attention import SE
        >>> SE(64, reduction=8).attention_map(torch.randn(2, 64, 28, 28)).shape
        torch.Size([2, 64, 1, 1])
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = True, init: Init = "paper") -> None:
        super().__init__(init)
        self.mlp = channel_mlp(channels, reduction, bias, self.identity_init)

    def logits(self, x: Tensor) -> Tensor:
        return expand_as(self.mlp(mean_positions(x)), x)
