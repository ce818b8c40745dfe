import pytest
import torch

from cbam3d.attention import SC
from tests.attention.reference import check_against, conv, norm, sigmoid
from tests.attention.test_residual import interpolate


def sc(block, x):
    half = x.shape[1] // 2
    first, second = x[:, :half], x[:, half:]

    def k(layers, y):
        return norm(layers[1], conv(layers[0], y))

    r = block.pooling[-1]
    rows = torch.stack([first[..., i : i + r, :].mean(-2) for i in range(0, x.shape[-2], r)], -2)
    low = torch.stack([rows[..., i : i + r].mean(-1) for i in range(0, x.shape[-1], r)], -1)
    gate = sigmoid(first + interpolate(k(block.k2, low), x.shape[2:]))
    return torch.cat([k(block.k4, k(block.k3, first) * gate), k(block.k1, second)], 1)


@pytest.mark.parametrize("shape", [(2, 6, 8, 4), (2, 5, 3, 4, 8), (2, 4, 6, 7)])
@pytest.mark.parametrize("pooling", [2, 4])
def test_equals_the_formula(shape, pooling):
    check_against(sc, SC(shape[1], pooling, ndim=len(shape) - 2), shape)


def test_features_smaller_than_the_pooling():
    assert SC(4, ndim=2).eval()(torch.randn(1, 4, 3, 2)).shape == (1, 4, 3, 2)


def test_one_channel_cannot_be_halved():
    with pytest.raises(ValueError, match="channels must be at least 2"):
        SC(1)
