"""A small CNN for CIFAR with CBAM after each of its three blocks.

The network of the recipe that reports 85.98 % on CIFAR-10 after 50 epochs (`configs/cifar10_cbam_cnn.yaml`);
1,150,896 parameters for ten classes. CBAM: Woo et al., ECCV 2018, https://arxiv.org/abs/1807.06521
"""

import math
from collections.abc import Sequence

from torch import Tensor, nn

from cbam3d.attention.nd import BATCH_NORM, CONV, MAX_POOL, as_tuple, check_ndim
from cbam3d.models.resnet import Attention


class AttentionBlock(nn.Module):
    """Layers in sequence, followed by attention."""

    has_attention_slot = True  # insert_attention sets `attention` instead of adding a hook

    def __init__(self, layers: Sequence[nn.Module], channels: int, attention: Attention | None) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)
        self.attention = attention(channels) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.attention(self.layers(x))


class CBAMCNN(nn.Module):
    """Three blocks of convolution, BatchNorm, ReLU, max pooling and attention, then two linear layers.

    Args:
        num_classes: size of the logits.
        ndim: 2 or 3; a clip's frames are pooled like its height and width.
        in_channels: channels of the input.
        size: of the input, multiples of 8: an int for all axes, or one per axis.
        channels: of the three blocks.
        hidden: units of the first linear layer.
        dropout: probability before the last layer.
        attention: maps a channel count to a shape-preserving module; None for none.

    Shapes: (N, in_channels, *size) -> (N, num_classes).

    Raises:
        ValueError: an invalid ndim, a size that cannot be halved three times, not three channels, or, from
            `forward`, an input of another size.

    Examples:
        >>> from cbam3d import CBAM2d
        >>> from cbam3d.models.cbam_cnn import CBAMCNN
        >>> model = CBAMCNN(num_classes=10, attention=CBAM2d)
        >>> model(torch.randn(2, 3, 32, 32)).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        ndim: int = 2,
        in_channels: int = 3,
        size: int | tuple[int, ...] = 32,
        channels: tuple[int, int, int] = (32, 64, 128),
        hidden: int = 512,
        dropout: float = 0.5,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        self.size = as_tuple(size, ndim)
        if any(side < 8 or side % 8 for side in self.size):
            raise ValueError(f"size must be a positive multiple of 8, got {size}")
        first, second, third = check_three(channels)

        def block(before: int, after: int) -> AttentionBlock:
            conv = CONV[ndim](before, after, 3, padding=1)
            layers = [conv, BATCH_NORM[ndim](after), nn.ReLU(inplace=True), MAX_POOL[ndim](2)]
            return AttentionBlock(layers, after, attention)

        self.blocks = nn.Sequential(block(in_channels, first), block(first, second), block(second, third))
        self.fc1 = nn.Linear(third * math.prod(side // 8 for side in self.size), hidden)
        self.relu = nn.ReLU(inplace=True)
        self.dropout = nn.Dropout(dropout)
        self.fc2 = nn.Linear(hidden, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        if tuple(x.shape[2:]) != self.size:
            raise ValueError(f"cbam_cnn was built for inputs of size {self.size}, got {tuple(x.shape[2:])}")
        x = self.blocks(x).flatten(1)
        return self.fc2(self.dropout(self.relu(self.fc1(x))))


def check_three(channels: Sequence[int]) -> tuple[int, int, int]:
    """Return the channels of three blocks, or raise ValueError."""
    if not isinstance(channels, Sequence) or [isinstance(c, int) and c > 0 for c in channels] != [True] * 3:
        raise ValueError(f"channels must be three positive integers, got {channels}")
    first, second, third = channels
    return first, second, third
