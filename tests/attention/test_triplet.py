import pytest
import torch

from cbam3d.attention import Triplet
from tests.attention.reference import SHAPES, check_against, conv, norm, sigmoid


def triplet(block, x):
    total = 0
    for axis, branch in enumerate(block.branches, start=1):
        away = x.movedim(axis, 1)
        pooled = torch.stack([away.amax(1), away.sum(1) / away.shape[1]], 1)
        gate = sigmoid(norm(branch[1], conv(branch[0], pooled)))
        total = total + (away * gate).movedim(1, axis)
    return total / len(block.branches)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size", [3, 7])
def test_equals_the_formula(shape, kernel_size):
    check_against(triplet, Triplet(shape[1], kernel_size, ndim=len(shape) - 2), shape)


def test_three_maps_in_an_image_and_four_in_a_clip():
    image, clip = torch.randn(2, 6, 5, 4), torch.randn(2, 6, 3, 5, 4)
    shapes = [tuple(one.shape[1:]) for one in Triplet(6, ndim=2).eval().attention_maps(image)]
    assert shapes == [(1, 5, 4), (6, 1, 4), (6, 5, 1)]
    shapes = [tuple(one.shape[1:]) for one in Triplet(6, ndim=3).eval().attention_maps(clip)]
    assert shapes == [(1, 3, 5, 4), (6, 1, 5, 4), (6, 3, 1, 4), (6, 3, 5, 1)]


def test_axes_may_change_places():
    """With the branches exchanged, a transposed picture gives the transposed result."""
    block = Triplet(6, 3, ndim=2).eval()
    x = torch.randn(2, 6, 5, 4)
    other = Triplet(6, 3, ndim=2).eval()
    for mine, theirs in ((0, 0), (1, 2), (2, 1)):
        other.branches[mine].load_state_dict(block.branches[theirs].state_dict())
    with torch.no_grad():
        other.branches[0][0].weight.copy_(block.branches[0][0].weight.transpose(2, 3))
    torch.testing.assert_close(other(x.transpose(2, 3)).transpose(2, 3), block(x))
