import pytest
import torch

from cbam3d.attention import GCT
from tests.attention.reference import SHAPES, check_against, spread


def gct(block, x):
    lengths = torch.stack([x[:, c].flatten(1).square().sum(1) + block.eps for c in range(x.shape[1])], 1) ** 0.5
    s = block.alpha * lengths
    normed = s / ((s**2).sum(1, keepdim=True) / x.shape[1] + block.eps) ** 0.5  # √C s / ‖s‖
    return x * spread(1 + torch.tanh(block.gamma * normed + block.beta), x)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(gct, GCT(shape[1]), shape)


def test_the_identity_at_the_start():
    x = torch.randn(2, 4, 3, 5, 5)
    assert torch.equal(GCT(4)(x), x)


def test_no_overflow_in_half_precision():
    block = GCT(4)
    torch.nn.init.ones_(block.gamma)
    x = 16 * torch.randn(1, 4, 56, 56)
    torch.testing.assert_close(block.half()(x.half()).float(), block.float()(x), rtol=5e-3, atol=0.1)


def test_another_number_of_channels_is_not_broadcast():
    with pytest.raises(ValueError, match="expected 4 channels"):
        GCT(4)(torch.zeros(2, 1, 3, 3))


def test_channels_compete_where_gamma_is_negative():
    block = GCT(2)
    torch.nn.init.constant_(block.gamma, -1.0)
    x = torch.stack([torch.full((4, 4), 3.0), torch.full((4, 4), 1.0)])[None]
    strong, weak = block.attention_map(x).flatten().tolist()
    assert strong < weak < 1
