import pytest
import torch

from cbam3d.attention import BAM
from tests.attention.reference import SHAPES, check_against, conv, linear, mean, norm, pointwise, relu, sigmoid, spread


def bam(block, x):
    first, channel_norm, _, last = block.channel
    channel = linear(last, relu(norm(channel_norm, linear(first, mean(x)))))
    y = relu(norm(block.spatial[1], pointwise(block.spatial[0], x)))
    y = relu(norm(block.spatial[4], conv(block.spatial[3], y)))
    y = relu(norm(block.spatial[7], conv(block.spatial[6], y)))
    return x * (1 + sigmoid(spread(channel, x) + pointwise(block.spatial[9], y)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dilation", [1, 4])
def test_equals_the_formula(shape, dilation):
    check_against(bam, BAM(shape[1], reduction=2, dilation=dilation, ndim=len(shape) - 2), shape)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("side", [3, 9])
def test_the_dilated_map_keeps_the_features_size(ndim, side):
    """A copied mistake: padding 1 with dilation 4, whose map shrinks and cannot be expanded."""
    block = BAM(4, reduction=2, ndim=ndim).eval()
    x = torch.randn(2, 4, *(side,) * ndim)
    assert block.spatial(x).shape == (2, 1, *(side,) * ndim)


def test_both_branches_count_and_are_added():
    """Copied mistakes: a product in place of the sum, and the dilated branch computed and thrown away."""
    block = BAM(4, reduction=2, ndim=2).eval()
    x = torch.randn(2, 4, 6, 6)
    torch.nn.init.zeros_(block.channel[3].weight)
    torch.nn.init.zeros_(block.channel[3].bias)
    torch.testing.assert_close(block.logits(x), block.spatial(x).expand(-1, 4, -1, -1))
    block(x).sum().backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in block.spatial[9].parameters())
