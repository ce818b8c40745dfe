import itertools
import math

import pytest
import torch

from cbam3d.attention import FCA, SE
from tests.attention.reference import check_against, linear, relu, sigmoid, spread

FREQUENCIES = {2: [(0, 0), (1, 0), (2, 3)], 3: [(0, 0, 0), (1, 0, 2), (0, 3, 1)]}


def fca(block, x):
    """On features that have the grid's size; two channels a frequency."""
    grid, ndim = x.shape[2:], x.ndim - 2
    columns = []
    for c in range(x.shape[1]):
        frequency, total = FREQUENCIES[ndim][c // 2], 0
        for place in itertools.product(*(range(side) for side in grid)):
            wave = 1.0
            for u, i, side in zip(frequency, place, grid, strict=True):
                wave *= math.cos(math.pi * u * (i + 0.5) / side) * (math.sqrt(2) if u else 1)
            total = total + wave * x[(slice(None), c, *place)]
        columns.append(total / math.prod(grid))
    first, _, last = block.mlp
    return x * spread(sigmoid(linear(last, relu(linear(first, torch.stack(columns, 1))))), x)


@pytest.mark.parametrize("shape", [(2, 6, 5, 4), (2, 6, 2, 5, 4)])
def test_equals_the_formula(shape):
    ndim = len(shape) - 2
    block = FCA(shape[1], reduction=2, grid=shape[2:], frequencies=FREQUENCIES[ndim], ndim=ndim)
    block.basis = _exact(block, shape)  # kept in float32 otherwise
    check_against(fca, block, shape)


def _exact(block, shape):
    waves = []
    for c in range(shape[1]):
        wave = torch.ones((), dtype=torch.float64)
        for u, side in zip(FREQUENCIES[len(shape) - 2][c // 2], shape[2:], strict=True):
            line = [math.cos(math.pi * u * (i + 0.5) / side) * (math.sqrt(2) if u else 1) for i in range(side)]
            wave = wave[..., None] * torch.tensor(line, dtype=torch.float64)
        waves.append(wave)
    exact = torch.stack(waves)[None]
    torch.testing.assert_close(block.basis.double(), exact, rtol=0, atol=1e-7)
    return exact


@pytest.mark.parametrize("ndim", [2, 3])
def test_with_the_zero_frequency_alone_it_is_se(ndim):
    block = FCA(8, reduction=2, frequencies=[(0,) * ndim], ndim=ndim)
    se = SE(8, reduction=2, bias=False)
    se.load_state_dict({key: value for key, value in block.state_dict().items() if key != "basis"})
    x = torch.randn(2, 8, *(4, 14, 7)[-ndim:])
    torch.testing.assert_close(block(x), se(x))


def test_frequencies_are_orthonormal():
    """Every channel another of the paper's sixteen: means of products of the waves are 1 or 0."""
    waves = FCA(16, ndim=2).basis[0].flatten(1)
    torch.testing.assert_close(waves @ waves.T / 49, torch.eye(16), atol=1e-6, rtol=0)


def test_channels_and_frequencies():
    """Runs of channels share a frequency; a few channels take the best ones."""
    few, many = FCA(3, ndim=2).basis[0], FCA(32, ndim=2).basis[0]
    torch.testing.assert_close(few, FCA(16, ndim=2).basis[0, :3])
    torch.testing.assert_close(many[::2], many[1::2])
    torch.testing.assert_close(many[::2], FCA(16, ndim=2).basis[0])


def test_a_frequency_that_the_grid_does_not_have():
    with pytest.raises(ValueError, match=r"frequency \(7, 0\) does not exist in a grid of \(7, 7\)"):
        FCA(8, frequencies=[(7, 0)], ndim=2)
    with pytest.raises(ValueError, match=r"frequency \(1, 0, 0\) does not exist in a grid of \(1, 7, 7\)"):
        FCA(8, frequencies=[(1, 0, 0)])
