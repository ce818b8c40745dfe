import pytest
import torch

from cbam3d.attention import EMAttention
from tests.attention.reference import SHAPES, check_against, norm, pointwise, relu, softmax


def em_steps(block, x):
    """Each picture's bases (C, K) and weights (|S|, K) after the steps."""
    for y in pointwise(block.first, x).flatten(2):
        bases = block.bases.to(y.dtype)
        for _ in range(block.num_steps):
            z = softmax(torch.einsum("cs,ck->sk", y, bases), 1)
            new = []
            for k in range(bases.shape[1]):
                total = sum(z[s, k] * y[:, s] for s in range(y.shape[1])) / (z[:, k].sum() + 1e-6)
                new.append(total / total.square().sum() ** 0.5)
            bases = torch.stack(new, 1)
        yield bases, z


def ema(block, x):
    rebuilt = [torch.einsum("ck,sk->cs", bases, z) for bases, z in em_steps(block, x)]
    out = relu(torch.stack(rebuilt).reshape(x.shape))
    return relu(x + norm(block.last[1], pointwise(block.last[0], out)))


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(ema, EMAttention(shape[1], num_bases=4, ndim=len(shape) - 2), shape)


def test_bases_move_in_training_only():
    block = EMAttention(6, num_bases=4, ndim=2).double()
    x = torch.randn(3, 6, 4, 5, dtype=torch.float64)
    before = block.bases.clone()
    block.eval()(x)
    assert torch.equal(block.bases, before)
    fitted = torch.stack([bases for bases, _ in em_steps(block, x)]).mean(0)
    block.train()(x)
    torch.testing.assert_close(block.bases, 0.9 * before + 0.1 * fitted.detach())


def test_the_first_convolution_learns():
    """In the official code no gradient reaches it."""
    block = EMAttention(6, num_bases=4, ndim=2)
    block(torch.randn(3, 6, 4, 5)).square().sum().backward()
    assert block.first.weight.grad is not None
    assert block.first.weight.grad.abs().max() > 1e-6
