import itertools

import pytest
import torch

from cbam3d.attention import GE
from tests.attention.reference import SHAPES, check_against, conv, mean, norm, relu, sigmoid, spread


def nearest(small, size):
    """Nearest upsampling: place i takes from floor(i · small / size)."""
    for axis, side in enumerate(size, start=2):
        index = torch.tensor([i * small.shape[axis] // side for i in range(side)])
        small = small.index_select(axis, index)
    return small


def ge_theta(block, x):
    gathered = x
    for i, step in enumerate(block.gather):
        gathered = conv(step, gathered) if i % 3 == 0 else norm(step, gathered) if i % 3 == 1 else relu(gathered)
    return x * sigmoid(nearest(gathered, x.shape[2:]))


def ge_mean(block, x):
    """Means over 2e - 1 positions around every e-th, of those that exist."""
    e = block.extent
    size = [(side - 1) // e + 1 for side in x.shape[2:]]
    out = []
    for place in itertools.product(*(range(side) for side in size)):
        window = tuple(slice(max(0, e * i - e + 1), e * i + e) for i in place)
        out.append(mean(x[(..., *window)]))
    gathered = torch.stack(out, -1).reshape(*x.shape[:2], *size)
    return x * sigmoid(nearest(gathered, x.shape[2:]))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("extent", [2, 4])
@pytest.mark.parametrize("parametrised", [True, False])
def test_equals_the_formula(shape, extent, parametrised):
    block = GE(shape[1], extent, parametrised, ndim=len(shape) - 2)
    check_against(ge_theta if parametrised else ge_mean, block, shape)


@pytest.mark.parametrize("shape", SHAPES)
def test_everywhere_is_the_mean(shape):
    check_against(lambda block, x: x * spread(sigmoid(mean(x)), x), GE(shape[1], ndim=len(shape) - 2), shape)


def test_refused_extents():
    with pytest.raises(ValueError, match="extent must be 0 or a power of two from 2, got 3"):
        GE(8, extent=3)
    with pytest.raises(ValueError, match="parametrised needs an extent"):
        GE(8, parametrised=True)
