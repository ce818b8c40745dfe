import itertools
import math

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import deform_conv2d

from cbam3d.attention import DeformableConv
from tests.attention.reference import SHAPES, at, check_against, conv, from_positions, positions, randomised, sigmoid


def value_at(x, sample, place):
    """Of one sample, (C,): linear along every axis, 0 beyond the edges."""
    total = x.new_zeros(x.shape[1])
    low = [math.floor(float(p.detach())) for p in place]
    for corner in itertools.product(*((n, n + 1) for n in low)):
        if all(0 <= c < side for c, side in zip(corner, x.shape[2:], strict=True)):
            weight = x.new_ones(())
            for c, p in zip(corner, place, strict=True):
                weight = weight * (1 - (p - c).abs())
            total = total + weight * x[(sample, slice(None), *corner)]
    return total


def deformable(block, x):
    """Position by position, tap by tap."""
    offsets = conv(block.offset, x)
    weights = 2 * sigmoid(conv(block.modulation, x)) if block.modulated else None
    taps = list(itertools.product(*(range(-(k // 2), k // 2 + 1) for k in block.kernel)))
    share = x.shape[1] // block.groups
    axes = block.axes
    out = {}
    for i in positions(x):
        rows = []
        for n in range(len(x)):
            total = block.conv.bias
            for g, (k, tap) in itertools.product(range(block.groups), enumerate(taps)):
                index = g * len(taps) + k
                moved = at(offsets, i)[n, index * axes : (index + 1) * axes]
                moved = torch.cat([moved.new_zeros(len(tap) - axes), moved])
                place = [a + b + c for a, b, c in zip(i, tap, moved, strict=True)]
                channels = slice(g * share, (g + 1) * share)
                value = value_at(x[:, channels], n, place)
                if weights is not None:
                    value = value * at(weights, i)[n, index]
                kernel = block.conv.weight[
                    (slice(None), channels, *(a + s // 2 for a, s in zip(tap, block.kernel, strict=True)))
                ]
                total = total + kernel @ value
            rows.append(total)
        out[i] = torch.stack(rows)
    return from_positions(out, x)


@pytest.mark.parametrize("shape", [(2, 4, 4, 3), (1, 4, 2, 3, 3)])
@pytest.mark.parametrize("options", [{}, {"modulated": False}, {"groups": 2}, {"temporal_offsets": False}])
def test_equals_the_formula(shape, options):
    check_against(deformable, DeformableConv(shape[1], ndim=len(shape) - 2, **options), shape)


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("modulated", [True, False])
def test_equals_torchvision(groups, modulated):
    torch.manual_seed(0)
    block = randomised(DeformableConv(8, 3, modulated, groups, ndim=2)).double()
    x = torch.randn(2, 8, 9, 7, dtype=torch.float64)
    mask = 2 * torch.sigmoid(block.modulation(x)) if modulated else None
    expected = deform_conv2d(x, block.offset(x), block.conv.weight, block.conv.bias, padding=1, mask=mask)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("shape", SHAPES)
def test_it_starts_as_the_plain_convolution(shape):
    block = DeformableConv(shape[1], ndim=len(shape) - 2).double()
    x = torch.randn(shape, dtype=torch.float64)
    torch.testing.assert_close(block(x), block.conv(x))


def test_an_offset_of_a_frame_is_the_next_frame():
    block = DeformableConv(4, 1).double()
    with torch.no_grad():
        block.offset.bias.copy_(torch.tensor([1.0, 0, 0]))
    x = torch.randn(2, 4, 5, 3, 3, dtype=torch.float64)
    later = F.pad(x[:, :, 1:], [0, 0, 0, 0, 0, 1])
    torch.testing.assert_close(block(x), block.conv(later))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must divide the 8 channels"):
        DeformableConv(8, groups=3)
    with pytest.raises(ValueError, match="must be odd"):
        DeformableConv(8, 2)
