import pytest
import torch

from cbam3d.attention import CrissCross
from tests.attention.reference import SHAPES, at, check_against, from_positions, pointwise, positions, softmax


def criss_cross(block, x):
    for _ in range(block.recurrence):
        q, k, v = (pointwise(layer, x) for layer in (block.query, block.key, block.value))
        out = {}
        for i in positions(x):
            lines = [j for j in positions(x) if sum(a != b for a, b in zip(i, j, strict=True)) <= 1]
            weights = softmax(torch.stack([(at(q, i) * at(k, j)).sum(1) for j in lines], 1), 1)
            out[i] = sum(weights[:, n, None] * at(v, j) for n, j in enumerate(lines))
        x = x + block.gamma * from_positions(out, x)
    return x


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("recurrence", [1, 2])
def test_equals_the_formula(shape, recurrence):
    check_against(criss_cross, CrissCross(shape[1], 2, recurrence, ndim=len(shape) - 2), shape)


def test_the_identity_at_the_start():
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(CrissCross(4)(x), x)


REACHED = [(2, 1, False), (2, 2, True), (3, 2, False), (3, 3, True)]


@pytest.mark.parametrize(("ndim", "recurrence", "reaches_all"), REACHED)
def test_what_a_position_reaches(ndim, recurrence, reaches_all):
    """Twice over in an image, three times in a clip: each axis is one pass."""
    block = CrissCross(2, recurrence=recurrence, ndim=ndim).double()
    torch.nn.init.ones_(block.gamma)
    x = torch.randn(1, 2, *(3, 4, 5)[-ndim:], dtype=torch.float64, requires_grad=True)
    block(x)[(0, 0, *(1, 2, 2)[-ndim:])].backward()
    assert x.grad is not None
    assert bool((x.grad.abs().sum(1) > 0).all()) == reaches_all
