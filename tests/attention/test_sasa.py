import itertools

import pytest
import torch

from cbam3d.attention import SASA
from tests.attention.reference import SHAPES, at, check_against, from_positions, pointwise, positions, softmax


def sasa(block, x):
    """Position by position, head by head."""
    q, k, v = (pointwise(layer, x) for layer in (block.query, block.key, block.value))
    reach = [size // 2 for size in block.window]
    axes = "thw"[-len(reach) :]
    width = x.shape[1] // block.heads
    out = {}
    for i in positions(x):
        inner = []
        for offset in itertools.product(*(range(-r, r + 1) for r in reach)):
            j = tuple(a + b for a, b in zip(i, offset, strict=True))
            if all(0 <= a < side for a, side in zip(j, x.shape[2:], strict=True)):
                inner.append((offset, j))
        heads = []
        for head in range(block.heads):
            channels = slice(head * width, (head + 1) * width)
            query, scores = at(q, i)[:, channels], []
            for offset, j in inner:
                parts = []  # of the relative position, in the order of the embeddings
                for name, embedding in block.offsets.items():
                    axis = axes.index(name)
                    parts.append(embedding[:, offset[axis] + reach[axis]])
                relative = torch.cat(parts)
                assert len(relative) == width
                scores.append((query * (at(k, j)[:, channels] + relative)).sum(1))
            weights = softmax(torch.stack(scores, 1), 1)
            heads.append(sum(weights[:, n, None] * at(v, j)[:, channels] for n, (_, j) in enumerate(inner)))
        out[i] = torch.cat(heads, 1)
    return from_positions(out, x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("heads", [1, 2])
def test_equals_the_formula(shape, heads):
    check_against(sasa, SASA(shape[1], 3, heads, ndim=len(shape) - 2), shape)


def test_a_window_along_time():
    check_against(sasa, SASA(6, (3, 3, 1), 2), (2, 6, 4, 3, 2))


@pytest.mark.parametrize("side", [3, 4])
def test_a_window_of_the_whole_map_is_full_attention_with_relative_positions(side):
    """Held against PyTorch's attention, with the scores of positions as its mask."""
    torch.manual_seed(0)
    block = SASA(8, 2 * side - 1, 2, ndim=2).double()
    x = torch.randn(2, 8, side, side, dtype=torch.float64)
    q, k, v = (
        layer(x).unflatten(1, (2, 4)).flatten(3).transpose(2, 3) for layer in (block.query, block.key, block.value)
    )
    rows, columns = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
    dy, dx = (line[None] - line[:, None] + side - 1 for line in (rows, columns))  # of key minus query
    relative = torch.cat([block.offsets["h"][:, dy], block.offsets["w"][:, dx]])
    bias = torch.einsum("nhid,dij->nhij", q, relative)
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
    torch.testing.assert_close(block(x).flatten(2), expected.transpose(2, 3).flatten(1, 2))


def test_far_positions_do_not_matter():
    block, x = SASA(8, 3, ndim=2), torch.randn(1, 8, 9, 9)
    changed = x.clone()
    changed[..., 6:, :] += 1
    assert torch.equal(block(changed)[..., :5, :], block(x)[..., :5, :])
    assert not torch.equal(block(changed)[..., 5, :], block(x)[..., 5, :])


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="must be odd"):
        SASA(8, 4)
    with pytest.raises(ValueError, match="heads must be at least 1"):
        SASA(8, heads=0)
    with pytest.raises(ValueError, match="3 ints"):
        SASA(8, (3, 3))
