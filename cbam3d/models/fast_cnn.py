"""A small network for short training runs on small images: whitened input, three blocks, attention, no shortcuts.

Whitening, identity initialisation, global max pooling and scaled logits are taken from the fastest CIFAR-10
training recipes: Page, "How to train your ResNet" (https://github.com/davidcpage/cifar10-fast) and Jordan,
"94% on CIFAR-10 in 3.29 seconds on a single GPU", https://arxiv.org/abs/2404.00498. Attention is added here.
"""

import torch
from torch import Tensor, nn

from cbam3d.attention.nd import BATCH_NORM, CONV, MAX_POOL, amax, check_ndim, spatial_axes
from cbam3d.models.cbam_cnn import AttentionBlock, check_three
from cbam3d.models.resnet import Attention


class FastCNN(nn.Module):
    """A whitening 2x2 convolution, then three blocks, each: conv, pool, norm, GELU, conv, norm, GELU, attention.

    Args:
        num_classes: size of the logits.
        ndim: 2 or 3.
        in_channels: channels of the input.
        channels: of the three blocks.
        logit_scale: factor of the logits, so that the last layer can learn fast.
        attention: maps a channel count to a shape-preserving module; None for none.

    Shapes: (N, in_channels, *S) -> (N, num_classes).

    Raises:
        ValueError: an invalid ndim, not three channels, or, from `forward`, a side of S below 9.

    The first convolution is frozen: `init_from_data` sets it to whiten 2x2 patches.

    Examples:
        >>> from cbam3d.models.fast_cnn import FastCNN
        >>> model, images = FastCNN(num_classes=10, channels=(16, 64, 128)), torch.randn(100, 3, 32, 32)
        >>> model.init_from_data(images)
        >>> model(images[:2]).shape
        torch.Size([2, 10])
    """

    def __init__(
        self,
        num_classes: int,
        ndim: int = 2,
        in_channels: int = 3,
        channels: tuple[int, int, int] = (64, 256, 256),
        logit_scale: float = 1 / 9,
        attention: Attention | None = None,
    ) -> None:
        super().__init__()
        check_ndim(ndim)
        one, two, three = check_three(channels)
        whitened = 2 * in_channels * 2**ndim  # every component, and its negative
        self.whiten = CONV[ndim](in_channels, whitened, 2, bias=False)
        self.whiten.get_parameter("weight").requires_grad = False

        def conv_norm(before: int, after: int, pool: nn.Module) -> list[nn.Module]:
            conv = CONV[ndim](before, after, 3, padding=1, bias=False)
            nn.init.dirac_(conv.get_parameter("weight").data[:before])  # the first channels pass through
            return [conv, pool, BATCH_NORM[ndim](after, momentum=0.4), nn.GELU()]  # fast statistics for few steps

        def block(before: int, after: int) -> AttentionBlock:
            layers = conv_norm(before, after, MAX_POOL[ndim](2)) + conv_norm(after, after, nn.Identity())
            return AttentionBlock(layers, after, attention)

        self.act = nn.GELU()
        self.blocks = nn.Sequential(block(whitened, one), block(one, two), block(two, three))
        self.fc = nn.Linear(three, num_classes, bias=False)
        self.logit_scale = logit_scale

    @torch.no_grad()
    def init_from_data(self, inputs: Tensor) -> None:
        """Set the filters: eigenvectors of the covariance of 2x2 patches, divided by the roots of their eigenvalues.

        Args:
            inputs: (N, in_channels, *S); a hundred images are enough.
        """
        weight = self.whiten.get_parameter("weight")
        kernel, half = weight.shape[1:], len(weight) // 2
        patches = CONV[inputs.ndim - 2](kernel[0], half, 2, bias=False, device=inputs.device, dtype=inputs.dtype)
        patches.get_parameter("weight").copy_(torch.eye(half).reshape(half, *kernel))
        total, products, count = torch.zeros(half).double(), torch.zeros(half, half).double(), 0
        for sample in inputs.split(1):
            values = patches(sample)[0].flatten(1).cpu().double()
            total += values.sum(1)
            products += values @ values.T
            count += values.shape[1]
        mean = total / count
        eigenvalues, eigenvectors = torch.linalg.eigh(products / count - mean[:, None] * mean)
        scaled = (eigenvectors / (eigenvalues + 5e-4).sqrt()).T.reshape(half, *kernel)
        weight.copy_(torch.cat([scaled, -scaled]))

    def forward(self, x: Tensor) -> Tensor:
        if min(x.shape[2:]) < 9:
            raise ValueError(f"fast_cnn needs inputs with sides of at least 9, got {tuple(x.shape[2:])}")
        x = self.blocks(self.act(self.whiten(x)))
        return self.fc(amax(x, spatial_axes(x))) * self.logit_scale
