import pytest
import torch
from torch.nn import functional as F

from cbam3d.attention import ASFF
from tests.attention.reference import conv, randomised, softmax

IMAGES = [(2, 4, 12, 8), (2, 5, 6, 4), (2, 6, 3, 2)]
CLIPS = [(2, 4, 4, 12, 8), (2, 5, 4, 6, 4), (2, 6, 2, 3, 2)]  # the last has half the frames


def enlarged(x, size):
    for axis, side in enumerate(size, start=2):
        x = x.repeat_interleave(side // x.shape[axis], axis) if side > x.shape[axis] else x
    return x


def frames_of(x, count):
    """Means of as many neighbouring frames as there are too many."""
    return x if x.ndim == 4 or x.shape[2] <= count else x.unflatten(2, (count, -1)).mean(3)


def maximum(x):
    """3x3, stride 2, over H and W."""
    pooled = F.max_pool2d(x.reshape(x.shape[0], -1, *x.shape[-2:]), 3, 2, 1)
    return pooled.reshape(*x.shape[:-2], *pooled.shape[-2:])


def asff(block, levels):
    size = levels[block.level].shape[2:]
    resized = []
    for i, (x, layer) in enumerate(zip(levels, block.resize, strict=True)):
        if i > block.level:
            x = enlarged(conv(layer, x), size)
        elif i < block.level:
            for _ in range(block.level - i - 1):
                x = maximum(x)
            x = frames_of(conv(layer[-1], x), size[0])
        resized.append(x)
    logits = torch.stack([conv(layer, x)[:, 0] for layer, x in zip(block.weigh, resized, strict=True)], 1)
    weights = softmax(logits, 1)
    return sum(weights[:, i, None] * x for i, x in enumerate(resized))


@pytest.mark.parametrize("shapes", [IMAGES, CLIPS])
@pytest.mark.parametrize("level", [0, 1, 2])
def test_equals_the_formula(shapes, level):
    torch.manual_seed(0)
    block = randomised(ASFF([shape[1] for shape in shapes], level, len(shapes[0]) - 2)).double()
    levels = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    out, expected = block(levels), asff(block, levels)
    assert out.shape == shapes[level]
    torch.testing.assert_close(out, expected)
    weights = torch.randn_like(out)
    leaves = [*levels, *block.parameters()]
    ours, theirs = (torch.autograd.grad((y * weights).sum(), leaves) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


def test_equal_logits_are_the_mean():
    block = ASFF([4, 4], 0)
    for layer in block.weigh:
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.constant_(layer.bias, 0.3)
    levels = [torch.randn(2, 4, 6, 8), torch.randn(2, 4, 3, 4)]
    small = F.interpolate(block.resize[1](levels[1]), scale_factor=2)
    torch.testing.assert_close(block(levels), (levels[0] + small) / 2)
    maps = block.weights(levels)
    torch.testing.assert_close(maps, torch.full((2, 2, 6, 8), 0.5))


def test_odd_sides_and_exports():
    levels = [torch.randn(2, 4, 13, 9), torch.randn(2, 4, 7, 5), torch.randn(2, 4, 4, 3)]
    for level in range(3):
        block = ASFF([4, 4, 4], level).eval()
        assert block(levels).shape == levels[level].shape
        program = torch.export.export(block, (levels,))
        torch.testing.assert_close(program.module()(levels), block(levels))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="at least two levels and one of them, got 2 levels and 2"):
        ASFF([4, 4], 2)
    with pytest.raises(ValueError, match="expected 2 feature maps, got 1"):
        ASFF([4, 4], 0)([torch.zeros(1, 4, 4, 4)])
