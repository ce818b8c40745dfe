import pytest
import torch

from cbam3d.attention import NonLocal, SelfAttention
from tests.attention.reference import SHAPES, at, check_against, from_positions, pointwise, positions, softmax


def pool(x, ds):
    """The mean over ds×ds pixels of each frame, of those that exist."""
    rows = torch.stack([x[..., i : i + ds, :].mean(-2) for i in range(0, x.shape[-2], ds)], -2)
    return torch.stack([rows[..., i : i + ds].mean(-1) for i in range(0, rows.shape[-1], ds)], -1)


def self_attention(block, x):
    low = pool(x, block.pooling[-1])
    q, k, v = (pointwise(layer, low) for layer in (block.query, block.key, block.value))
    out = {}
    for i in positions(low):
        scores = torch.stack([(at(q, i) * at(k, j)).sum(1) / q.shape[1] ** 0.5 for j in positions(low)], 1)
        weights = softmax(scores, 1)
        out[i] = sum(weights[:, n, None] * at(v, j) for n, j in enumerate(positions(low)))
    up = from_positions(out, low)
    for axis in (-2, -1):  # every pixel has its own block's
        block_of = torch.arange(x.shape[axis]) // block.pooling[-1]
        up = up.index_select(axis, block_of)
    return x + up


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pooling", [1, 2, 3])
def test_equals_the_formula(shape, pooling):
    block = SelfAttention(shape[1], pooling, reduction=2, ndim=len(shape) - 2)
    check_against(self_attention, block, shape)


def test_positions_may_be_in_any_order():
    block = SelfAttention(6, ndim=2)
    order, x = torch.randperm(20), torch.randn(2, 6, 4, 5)
    shuffled = x.flatten(2)[:, :, order].reshape(x.shape)
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[:, :, order])


def test_a_non_local_block_with_its_weights_is_the_same():
    """But for the scale, and the output layer: two files, one attention."""
    block = SelfAttention(4, reduction=1, ndim=2)
    other = NonLocal(4, reduction=1, ndim=2).eval()
    pairs = ((other.theta, block.query), (other.phi, block.key), (other.g, block.value))
    for theirs, ours in pairs:
        theirs.load_state_dict(ours.state_dict())
    with torch.no_grad():
        for parameter in other.theta.parameters():
            parameter.mul_(4**-0.5)
        other.out.weight.copy_(torch.eye(4)[:, :, None, None])
        other.out.bias.zero_()
        other.norm.weight.fill_((1 + other.norm.eps) ** 0.5)
    x = torch.randn(2, 4, 5, 6)
    torch.testing.assert_close(other(x), block(x))
