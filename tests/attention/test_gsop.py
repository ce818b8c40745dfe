import pytest
import torch

from cbam3d.attention import GSoP
from tests.attention.reference import (
    SHAPES,
    at,
    check_against,
    linear,
    mean,
    norm,
    pointwise,
    positions,
    relu,
    sigmoid,
    spread,
)


def gsop(block, x):
    y = relu(norm(block.reduce[1], pointwise(block.reduce[0], x)))
    centre, n = mean(y), len(positions(y))
    covariance = sum(torch.einsum("na,nb->nab", at(y, p) - centre, at(y, p) - centre) for p in positions(y)) / n
    rows = norm(block.row_norm, covariance)
    numbers = []
    for row in range(rows.shape[1]):
        for k in range(4):
            weight, bias = block.row_conv.weight[4 * row + k, 0], block.row_conv.bias[4 * row + k]
            numbers.append((rows[:, row] * weight).sum(1) + bias)
    return x * spread(sigmoid(linear(block.last, torch.stack(numbers, 1))), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("hidden", [4, 128])
def test_equals_the_formula(shape, hidden):
    check_against(gsop, GSoP(shape[1], hidden, ndim=len(shape) - 2), shape)


def test_no_overflow_in_half_precision():
    block = GSoP(4, ndim=2).eval()
    x = 16 * torch.randn(1, 4, 56, 56)
    torch.testing.assert_close(block.half()(x.half()).float(), block.float()(x), rtol=0.05, atol=0.5)


def test_positions_may_be_in_any_order():
    block = GSoP(6, ndim=2).eval()
    x = torch.randn(2, 6, 4, 5)
    shuffled = x.flatten(2)[:, :, torch.randperm(20)].reshape(x.shape)
    torch.testing.assert_close(block.attention_map(x), block.attention_map(shuffled))
