import pytest
import torch

from cbam3d.attention import SE
from tests.attention.reference import SHAPES, check_against, linear, mean, relu, sigmoid, spread


def se(block, x):
    first, _, last = block.mlp
    return x * spread(sigmoid(linear(last, relu(linear(first, mean(x))))), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_equals_the_formula(shape, bias):
    check_against(se, SE(shape[1], reduction=2, bias=bias), shape)


def test_by_hand():
    block = SE(2, reduction=2, bias=False)
    with torch.no_grad():
        block.mlp[0].weight.copy_(torch.tensor([[1.0, 2.0]]))
        block.mlp[2].weight.copy_(torch.tensor([[1.0], [-1.0]]))
    x = torch.tensor([[[[0.0, 2.0]], [[1.0, 3.0]]]])  # means 1 and 2, so 5 hidden
    expected = torch.sigmoid(torch.tensor([5.0, -5.0]))
    torch.testing.assert_close(block.attention_map(x).flatten(), expected)


def test_equals_torchvisions():
    from torchvision.ops import SqueezeExcitation

    block, theirs = SE(8, reduction=2), SqueezeExcitation(8, 4)
    for ours, other in zip(block.mlp[::2], (theirs.fc1, theirs.fc2), strict=True):
        other.load_state_dict({"weight": ours.weight[..., None, None], "bias": ours.bias})
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(block(x), theirs(x))
