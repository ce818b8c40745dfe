import pytest
import torch

from cbam3d.attention import GC
from tests.attention.reference import SHAPES, at, check_against, linear, pointwise, positions, relu, softmax, spread


def gc(block, x):
    weights = softmax(pointwise(block.key, x).flatten(2)[:, 0], 1)
    context = sum(weights[:, n, None] * at(x, j) for n, j in enumerate(positions(x)))
    first, layer_norm, _, last = block.transform
    hidden = linear(first, context)
    centred = hidden - hidden.mean(1, keepdim=True)
    normed = centred / torch.sqrt((centred**2).mean(1, keepdim=True) + layer_norm.eps)
    return x + spread(linear(last, relu(normed * layer_norm.weight + layer_norm.bias)), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(gc, GC(shape[1], reduction=2, ndim=len(shape) - 2), shape)


def test_the_identity_at_the_start():
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(GC(4)(x), x)


def test_few_channels_still_say_something():
    """LayerNorm of one hidden unit would be 0 whatever comes in."""
    torch.manual_seed(0)
    block = GC(8, ndim=2)
    torch.nn.init.normal_(block.transform[3].weight)
    x = torch.randn(4, 8, 5, 5)
    assert ((block(x) - x).std(0) > 0.05).any()


def test_every_position_gets_the_same():
    block = GC(4, ndim=2)
    torch.nn.init.normal_(block.transform[3].weight)
    x = torch.randn(2, 4, 5, 5)
    added = block(x) - x
    torch.testing.assert_close(added, added[..., :1, :1].expand_as(added))
    torch.testing.assert_close(block.attention_map(x).sum((2, 3)), torch.ones(2, 1))
