"""One ResNet for images and clips.

He, Zhang, Ren, Sun, CVPR 2016, https://arxiv.org/abs/1512.03385; as a 3D network: Tran et al., CVPR 2018,
https://arxiv.org/abs/1711.11248 ("R3D"). With ndim=2 the modules and their names are those of torchvision's
`resnet*`; with ndim=3 the computation is that of torchvision's `r3d_18`.
"""

from collections.abc import Callable

from torch import Tensor, nn

from cbam3d.attention.nd import BATCH_NORM, CONV, MAX_POOL, check_ndim, per_frame, same_padding

Attention = Callable[[int], nn.Module]  # channels -> a shape-preserving module
Size = int | tuple[int, ...]


def _conv(ndim: int, in_channels: int, out_channels: int, kernel_size: Size, stride: Size = 1) -> nn.Module:
    """A convolution without bias, with same padding and He et al.'s initialisation."""
    padding = same_padding(kernel_size, ndim)
    conv = CONV[ndim](in_channels, out_channels, kernel_size, stride=stride, padding=padding, bias=False)
    nn.init.kaiming_normal_(conv.get_parameter("weight"), mode="fan_out", nonlinearity="relu")
    return conv


class _Block(nn.Module):
    """Residual block; subclasses define the branch. Attention follows the branch's last norm."""

    expansion = 1
    has_attention_slot = True  # insert_attention sets `attention` instead of adding a hook

    def __init__(self, ndim: int, in_channels: int, channels: int, stride: int, attention: Attention | None) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.relu = nn.ReLU(inplace=True)
        self.attention = attention(out_channels) if attention else nn.Identity()
        self.downsample = None
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                _conv(ndim, in_channels, out_channels, 1, stride), BATCH_NORM[ndim](out_channels)
            )

    def branch(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        return self.relu(self.attention(self.branch(x)) + shortcut)


class BasicBlock(_Block):
    """Two 3x3 convolutions (3x3x3 for clips)."""

    def __init__(self, ndim: int, in_channels: int, channels: int, stride: int, attention: Attention | None) -> None:
        super().__init__(ndim, in_channels, channels, stride, attention)
        self.conv1 = _conv(ndim, in_channels, channels, 3, stride)
        self.bn1 = BATCH_NORM[ndim](channels)
        self.conv2 = _conv(ndim, channels, channels, 3)
        self.bn2 = BATCH_NORM[ndim](channels)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        return self.bn2(self.conv2(x))


class Bottleneck(_Block):
    """1x1, 3x3 (strided) and 1x1 convolutions, the last with four times the channels."""

    expansion = 4

    def __init__(self, ndim: int, in_channels: int, channels: int, stride: int, attention: Attention | None) -> None:
        super().__init__(ndim, in_channels, channels, stride, attention)
        self.conv1 = _conv(ndim, in_channels, channels, 1)
        self.bn1 = BATCH_NORM[ndim](channels)
        self.conv2 = _conv(ndim, channels, channels, 3, stride)
        self.bn2 = BATCH_NORM[ndim](channels)
        self.conv3 = _conv(ndim, channels, channels * self.expansion, 1)
        self.bn3 = BATCH_NORM[ndim](channels * self.expansion)

    def branch(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.relu(self.bn2(self.conv2(x)))
        return self.bn3(self.conv3(x))


DEPTHS: dict[int, tuple[type[_Block], tuple[int, int, int, int]]] = {
    10: (BasicBlock, (1, 1, 1, 1)),
    18: (BasicBlock, (2, 2, 2, 2)),
    34: (BasicBlock, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
    152: (Bottleneck, (3, 8, 36, 3)),
}


class ResNet(nn.Module):
    """ResNet for images (ndim=2) or clips (ndim=3).

    Args:
        depth: 10, 18, 34, 50, 101 or 152.
        num_classes: size of the logits.
        ndim: 2 or 3.
        in_channels: channels of the input.
        width: channels of the first stage; each later stage doubles them.
        stem_kernel_size: odd; an int for H and W (3 frames for clips), or one per axis.
        stem_stride: along H and W; all frames of a clip are kept.
        stem_pool: max pooling after the stem: True for 3x3 along H and W, or one kernel size per axis; the
            stride is 2 along axes with a kernel above 1. None: as in torchvision, True for images and False
            for clips. For small images: stem_kernel_size=3, stem_stride=1, stem_pool=False. The stem of
            3D-ResNets-PyTorch is stem_kernel_size=(7, 7, 7), stem_pool=(3, 3, 3).
        dropout: probability before the last layer.
        attention: maps a channel count to a shape-preserving module; one is inserted into every block,
            after the branch's last norm and before the addition.

    Shapes: (N, in_channels, H, W) or (N, in_channels, T, H, W) -> (N, num_classes).

    Raises:
        ValueError: an invalid depth or ndim, or the name of a mechanism, which `create_model` takes.

    Examples:
        >>> from cbam3d import CBAM3d, ResNet
        >>> model = ResNet(18, num_classes=10, width=16, attention=CBAM3d)
        >>> model(torch.randn(1, 3, 8, 32, 32)).shape
        torch.Size([1, 10])
    """

    def __init__(
        self,
        depth: int,
        num_classes: int,
        ndim: int = 3,
        in_channels: int = 3,
        width: int = 64,
        stem_kernel_size: Size = 7,
        stem_stride: int = 2,
        stem_pool: bool | tuple[int, ...] | None = None,
        dropout: float = 0.0,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        if isinstance(attention, str):
            raise ValueError(f"attention must be callable, got {attention!r}: create_model takes names")
        if depth not in DEPTHS:
            raise ValueError(f"depth must be one of {', '.join(map(str, DEPTHS))}, got {depth}")
        block, num_blocks = DEPTHS[depth]

        square = isinstance(stem_kernel_size, int)
        kernel = (3, stem_kernel_size, stem_kernel_size)[-ndim:] if square else tuple(stem_kernel_size)
        self.conv1 = _conv(ndim, in_channels, width, kernel, per_frame(stem_stride, ndim))
        self.bn1 = BATCH_NORM[ndim](width)
        self.relu = nn.ReLU(inplace=True)
        pool = ndim == 2 if stem_pool is None else stem_pool
        self.maxpool = nn.Identity()
        if pool:
            window = per_frame(3, ndim) if pool is True else tuple(pool)
            stride = tuple(min(k, 2) for k in window)
            self.maxpool = MAX_POOL[ndim](window, stride, same_padding(window, ndim))

        def layer(stage: int) -> nn.Sequential:
            channels = width * 2**stage
            before = width if stage == 0 else width * 2 ** (stage - 1) * block.expansion
            first = block(ndim, before, channels, 1 if stage == 0 else 2, attention)
            others = [
                block(ndim, channels * block.expansion, channels, 1, attention) for _ in range(1, num_blocks[stage])
            ]
            return nn.Sequential(first, *others)

        self.layer1, self.layer2, self.layer3, self.layer4 = (layer(stage) for stage in range(4))
        self.dropout = nn.Dropout(dropout)
        self.fc = nn.Linear(width * 8 * block.expansion, num_classes)

    def features(self, x: Tensor) -> Tensor:
        """The last stage's output, (N, C, *spatial)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        return self.layer4(self.layer3(self.layer2(self.layer1(x))))

    def forward(self, x: Tensor) -> Tensor:
        x = self.features(x)
        return self.fc(self.dropout(x.mean(tuple(range(2, x.ndim)))))
