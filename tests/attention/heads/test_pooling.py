import math

import pytest
import torch
from torch import nn

from cbam3d.attention import AttentionPooling
from cbam3d.attention.heads.pooling import positional_encoding
from tests.attention.reference import randomised


def layer_norm(layer, x):
    mean = x.mean(-1, keepdim=True)
    variance = ((x - mean) ** 2).mean(-1, keepdim=True)
    return (x - mean) / torch.sqrt(variance + layer.eps) * layer.weight + layer.bias


def attend(layer, queries, tokens):
    """Multi-head attention, head by head, as in Vaswani et al."""
    dim, heads = layer.embed_dim, layer.num_heads
    width = dim // heads
    wq, wk, wv = layer.in_proj_weight.split(dim)
    bq, bk, bv = layer.in_proj_bias.split(dim)
    parts = []
    for h in range(heads):
        rows = slice(h * width, (h + 1) * width)
        q, k, v = queries @ wq[rows].T + bq[rows], tokens @ wk[rows].T + bk[rows], tokens @ wv[rows].T + bv[rows]
        weights = torch.exp(q @ k.transpose(1, 2) / math.sqrt(width))
        parts.append(weights / weights.sum(-1, keepdim=True) @ v)
    return torch.cat(parts, -1) @ layer.out_proj.weight.T + layer.out_proj.bias


def encode(block, tokens):
    """An encoder block of ViT."""
    normed = layer_norm(block.norm1, tokens)
    tokens = tokens + attend(block.self_attn, normed, normed)
    hidden = layer_norm(block.norm2, tokens) @ block.linear1.weight.T + block.linear1.bias
    hidden = 0.5 * hidden * (1 + torch.erf(hidden / math.sqrt(2)))
    return tokens + hidden @ block.linear2.weight.T + block.linear2.bias


def pooled(head, x):
    tokens = layer_norm(head.norm, x.flatten(2).transpose(1, 2))
    if isinstance(head.tokens, nn.Linear):
        tokens = tokens @ head.tokens.weight.T + head.tokens.bias
    if head.positional:
        tokens = tokens + positional_encoding(x.shape[2:], tokens.shape[2]).to(tokens).flatten(1).T
    for block in head.encoder:
        tokens = encode(block, tokens)
    found = attend(head.attention, head.queries.expand(len(x), -1, -1), tokens).mean(1)
    norm, _, linear = head.classifier
    return layer_norm(norm, found) @ linear.weight.T + linear.bias


@pytest.mark.parametrize("shape", [(2, 8, 5), (2, 8, 3, 4), (2, 8, 3, 2, 2)])
@pytest.mark.parametrize("options", [{}, {"num_queries": 3, "num_layers": 2, "dim": 12}, {"positional": False}])
def test_equals_the_formula(shape, options):
    torch.manual_seed(0)
    head = randomised(AttentionPooling(8, 3, num_heads=2, **options)).double().eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out, expected = head(x), pooled(head, x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    leaves = [x, *head.parameters()]
    weights = torch.randn_like(out)
    for ours, theirs in zip(
        torch.autograd.grad((out * weights).sum(), leaves),
        torch.autograd.grad((expected * weights).sum(), leaves),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-9)


def test_encoding_by_hand():
    code = positional_encoding((2, 3), 9)  # 4 channels an axis, one is left
    assert code.shape == (9, 2, 3)
    for y in range(2):
        for x in range(3):
            expected = [math.sin(y), math.cos(y), math.sin(y / 100), math.cos(y / 100)]
            expected += [math.sin(x), math.cos(x), math.sin(x / 100), math.cos(x / 100), 0]
            torch.testing.assert_close(code[:, y, x], torch.tensor(expected))


def test_only_positions_and_layers_see_the_order_of_frames():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 5, 2, 2)
    shuffled = x[:, :, [3, 1, 4, 0, 2]]
    blind = AttentionPooling(8, 3, num_heads=2, positional=False).eval()
    torch.testing.assert_close(blind(x), blind(shuffled))
    seeing = randomised(AttentionPooling(8, 3, num_heads=2)).eval()
    assert not torch.allclose(seeing(x), seeing(shuffled))


def test_the_map_is_what_the_queries_attend_to():
    torch.manual_seed(0)
    head = randomised(AttentionPooling(8, 3, num_heads=2, num_queries=2)).eval()
    weights = head.attention_map(torch.randn(2, 8, 3, 2, 2))
    assert weights.shape == (2, 1, 3, 2, 2)
    torch.testing.assert_close(weights.mean((1, 2, 3, 4)), torch.ones(2))
    assert weights.std() > 0.01


def test_mistakes():
    with pytest.raises(ValueError, match="must divide the 8 channels"):
        AttentionPooling(8, 3, num_heads=3)
    with pytest.raises(ValueError, match="num_layers must be at least 0"):
        AttentionPooling(8, 3, num_layers=-1)
    with pytest.raises(ValueError, match="num_queries, num_heads and dim must be at least 1"):
        AttentionPooling(8, 3, num_queries=0)
