import pytest
import torch

from cbam3d.attention import NonLocal
from tests.attention.reference import SHAPES, at, check_against, from_positions, norm, pointwise, positions, softmax


def pooled(x):
    """The maximum over 2x2 pixels of each frame, of those that exist."""
    rows = torch.stack([x[..., i : i + 2, :].amax(-2) for i in range(0, x.shape[-2], 2)], -2)
    return torch.stack([rows[..., i : i + 2].amax(-1) for i in range(0, rows.shape[-1], 2)], -1)


def non_local(block, x):
    theta, phi, g = (pointwise(layer, x) for layer in (block.theta, block.phi, block.g))
    if not isinstance(block.pool, torch.nn.Identity):
        phi, g = pooled(phi), pooled(g)
    y = {}
    for i in positions(theta):
        scores = torch.stack([(at(theta, i) * at(phi, j)).sum(1) for j in positions(phi)], 1)
        weights = softmax(scores, 1) if block.mode == "gaussian" else scores / len(positions(phi))
        y[i] = sum(weights[:, n, None] * at(g, j) for n, j in enumerate(positions(g)))
    return x + norm(block.norm, pointwise(block.out, from_positions(y, theta)))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("mode", ["gaussian", "dot_product"])
@pytest.mark.parametrize("subsample", [False, True])
def test_equals_the_formula(shape, mode, subsample):
    check_against(non_local, NonLocal(shape[1], mode=mode, subsample=subsample, ndim=len(shape) - 2), shape)


def test_the_identity_at_the_start():
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(NonLocal(4)(x), x)


def test_positions_may_be_in_any_order():
    """What comes out is permuted as what went in."""
    block = NonLocal(6, ndim=2).eval()
    torch.nn.init.ones_(block.norm.weight)
    order, x = torch.randperm(20), torch.randn(2, 6, 4, 5)
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[:, :, order])


def test_unknown_mode():
    with pytest.raises(ValueError, match="mode must be"):
        NonLocal(4, mode="concatenation")  # type: ignore[arg-type]
