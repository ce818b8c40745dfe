import pytest
import torch

from cbam3d.attention import SRM
from tests.attention.reference import SHAPES, check_against, mean, norm, sigmoid, spread


def srm(block, x):
    means = mean(x)
    deviation = torch.sqrt(mean((x - spread(means, x)) ** 2) + block.eps)
    z = block.weight[:, 0] * means + block.weight[:, 1] * deviation
    return x * spread(sigmoid(norm(block.norm, z)), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(srm, SRM(shape[1]), shape)


def test_one_position_has_no_deviation():
    assert SRM(4).eval()(torch.randn(2, 4, 1, 1)).isfinite().all()


def test_channels_are_independent_of_each_other():
    """The paper's channel-wise fully connected layer: changing one channel leaves the others' gates."""
    block = SRM(3).eval()
    torch.nn.init.normal_(block.weight)
    x = torch.randn(1, 3, 4, 4)
    changed = x.clone()
    changed[:, 0] += 1
    assert torch.equal(block.attention_map(x)[:, 1:], block.attention_map(changed)[:, 1:])
