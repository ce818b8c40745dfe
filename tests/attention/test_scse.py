import pytest
import torch

from cbam3d.attention import SCSE, SE
from tests.attention.reference import SHAPES, check_against, linear, mean, pointwise, relu, sigmoid, spread


def scse(block, x):
    first, _, last = block.channel
    channel = x * spread(sigmoid(linear(last, relu(linear(first, mean(x))))), x)
    spatial = x * sigmoid(pointwise(block.spatial, x))
    return channel + spatial if block.combine == "sum" else torch.where(channel > spatial, channel, spatial)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("combine", ["sum", "max"])
def test_equals_the_formula(shape, combine):
    check_against(scse, SCSE(shape[1], combine=combine, ndim=len(shape) - 2), shape)


def test_half_of_it_is_se():
    block = SCSE(8, ndim=2)
    se = SE(8, reduction=2)
    se.mlp.load_state_dict(block.channel.state_dict())
    x = torch.randn(2, 8, 4, 4)
    torch.testing.assert_close(block(x) - x * torch.sigmoid(block.spatial(x)), se(x))


def test_unknown_combination():
    with pytest.raises(ValueError, match='combine must be "sum" or "max"'):
        SCSE(8, combine="product")  # type: ignore[arg-type]
