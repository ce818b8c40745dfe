import pytest
import torch

from cbam3d.attention import ResidualAttention
from tests.attention.reference import SHAPES, check_against, conv, norm, pointwise, relu, sigmoid


def max_pool(x):
    """3x3 with stride 2 in each frame, nothing where there is no pixel."""
    padded = torch.nn.functional.pad(x, [1, 1, 1, 1], value=-torch.inf)
    height, width = x.shape[-2:]
    windows = [padded[..., i : i + height : 2, j : j + width : 2] for i in range(3) for j in range(3)]
    return torch.stack(windows).amax(0)


def interpolate(x, size):
    """Linear along each axis, pixel centres at i + ½."""
    for axis, side in enumerate(size, start=2):
        old = x.shape[axis]
        places = [min(max((i + 0.5) * old / side - 0.5, 0), old - 1) for i in range(side)]
        rows = []
        for place in places:
            low = int(place)
            high, weight = min(low + 1, old - 1), place - int(place)
            rows.append(x.select(axis, low) * (1 - weight) + x.select(axis, high) * weight)
        x = torch.stack(rows, axis)
    return x


def unit(block, x):
    layers = block.branch
    out = pointwise(layers[2], relu(norm(layers[0], x)))
    out = conv(layers[5], relu(norm(layers[3], out)))
    return x + pointwise(layers[8], relu(norm(layers[6], out)))


def residual(block, x):
    if len(block.down) == 1:
        mask = interpolate(unit(block.up[0], unit(block.down[0], max_pool(x))), x.shape[2:])
    else:
        half = unit(block.down[0], max_pool(x))
        quarter = unit(block.down[1], max_pool(half))
        up = interpolate(unit(block.up[0], quarter), half.shape[2:]) + unit(block.skip[0], half)
        mask = interpolate(unit(block.up[1], up), x.shape[2:])
    last = block.last
    mask = pointwise(last[2], relu(norm(last[0], mask)))
    mask = pointwise(last[5], relu(norm(last[3], mask)))
    return x * (1 + sigmoid(mask))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("depth", [1, 2])
def test_equals_the_formula(shape, depth):
    check_against(residual, ResidualAttention(shape[1], depth, reduction=2, ndim=len(shape) - 2), shape)


def test_the_mask_never_weakens():
    """1 + σ: the paper's way to keep the trunk."""
    gates = ResidualAttention(4, ndim=2).eval().attention_map(torch.randn(2, 4, 6, 6))
    assert gates.min() > 1
    assert gates.max() < 2
