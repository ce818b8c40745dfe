import pytest
import torch
from torch import nn
from torch.nn import functional as F

from cbam3d import CBAM, create_model


def test_the_known_networks_parameters():
    """By hand: three convolutions with bias, their norms, three CBAMs of 2·C·C/16 + 2·49, two linear layers."""
    convolutions = (3 * 9 + 1) * 32 + (32 * 9 + 1) * 64 + (64 * 9 + 1) * 128
    norms = 2 * (32 + 64 + 128)
    attention = sum(2 * c * c // 16 + 2 * 49 for c in (32, 64, 128))
    linear = (2048 + 1) * 512 + (512 + 1) * 10
    model = create_model("cbam_cnn", num_classes=10)
    assert sum(p.numel() for p in model.parameters()) == convolutions + norms + attention + linear == 1_150_896


def test_the_order_of_its_parts():
    """Conv, norm, ReLU, pooling, CBAM, three times; then linear, ReLU, dropout, linear, written out."""
    torch.manual_seed(0)
    model = create_model("cbam_cnn", num_classes=10).eval()
    x = expected = torch.rand(4, 3, 32, 32)
    for block in model.get_submodule("blocks"):
        conv, norm, attention = block.layers[0], block.layers[1], block.attention
        assert isinstance(attention, CBAM)
        norm.running_mean.uniform_(-0.1, 0.1)
        expected = F.conv2d(expected, conv.weight, conv.bias, padding=1)
        expected = F.batch_norm(expected, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        expected = attention(F.max_pool2d(F.relu(expected), 2))
    fc1, fc2 = model.get_submodule("fc1"), model.get_submodule("fc2")
    expected = fc2(F.relu(fc1(expected.reshape(4, 2048))))
    torch.testing.assert_close(model(x), expected)
    assert [m.p for m in model.modules() if isinstance(m, nn.Dropout)] == [0.5]


def test_it_learns_with_clips_too():
    model = create_model("cbam_cnn", 5, ndim=3, size=(8, 16, 24), channels=(4, 8, 16), hidden=10)
    loss = model(torch.rand(2, 3, 8, 16, 24)).logsumexp(1).sum()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_sizes_that_cannot_be_halved():
    with pytest.raises(ValueError, match="size must be a positive multiple of 8, got 30"):
        create_model("cbam_cnn", 10, size=30)
    with pytest.raises(ValueError, match=r"built for inputs of size \(32, 32\), got \(24, 24\)"):
        create_model("cbam_cnn", 10)(torch.zeros(1, 3, 24, 24))


@pytest.mark.parametrize("channels", [(8, 8), 8, ("a", 8, 8), (0, 8, 8)])
@pytest.mark.parametrize("name", ["cbam_cnn", "fast_cnn"])
def test_channels_are_three(name, channels):
    with pytest.raises(ValueError, match="channels must be three positive integers, got"):
        create_model(name, 10, channels=channels)
