import copy

import pytest
import torch
import torchvision
from torch import nn

from cbam3d import CBAM3d, ResNet


def randomise_norms(model: nn.Module) -> nn.Module:
    """Statistics and scales that are not those of a fresh network, so that a mix-up shows."""
    generator = torch.Generator().manual_seed(0)
    for module in model.modules():
        if isinstance(module, (nn.BatchNorm2d, nn.BatchNorm3d)):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.5)
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


@pytest.mark.parametrize("depth", [18, 50])
def test_images_equal_torchvision_with_its_own_state_dict(depth):
    torch.manual_seed(0)
    theirs = randomise_norms(getattr(torchvision.models, f"resnet{depth}")(num_classes=7)).eval()
    ours = ResNet(depth, 7, ndim=2).eval()
    ours.load_state_dict(theirs.state_dict())
    x = torch.randn(2, 3, 64, 48)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


def test_clips_equal_torchvisions_r3d_18():
    torch.manual_seed(0)
    theirs = randomise_norms(torchvision.models.video.r3d_18(num_classes=7)).eval()
    ours = ResNet(18, 7, ndim=3).eval()
    names = {"stem.0": "conv1", "stem.1": "bn1"}
    state = {}
    for key, value in theirs.state_dict().items():
        for old, new in names.items():
            key = key.replace(old, new)
        for i in (1, 2):  # layer1.0.conv1 is Sequential(conv, norm[, relu])
            key = key.replace(f".conv{i}.0.", f".conv{i}.").replace(f".conv{i}.1.", f".bn{i}.")
        state[key] = value
    ours.load_state_dict(state)
    x = torch.randn(1, 3, 8, 48, 40)
    torch.testing.assert_close(ours(x), theirs(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("depth", "ndim", "options", "shape", "features"),
    [
        (10, 2, {"width": 8}, (2, 3, 64, 64), (2, 64, 2, 2)),
        (10, 3, {"width": 8}, (2, 3, 8, 64, 64), (2, 64, 1, 4, 4)),
        (10, 3, {"width": 8, "stem_pool": True}, (2, 3, 8, 64, 64), (2, 64, 1, 2, 2)),
        (
            18,
            2,
            {"width": 8, "stem_kernel_size": 3, "stem_stride": 1, "stem_pool": False},
            (2, 3, 32, 32),
            (2, 64, 4, 4),
        ),
        (50, 3, {"width": 8}, (1, 3, 4, 32, 32), (1, 256, 1, 2, 2)),
        (10, 3, {"width": 8, "in_channels": 1}, (1, 1, 5, 33, 31), (1, 64, 1, 3, 2)),
    ],
)
def test_shapes(depth, ndim, options, shape, features):
    model = ResNet(depth, 5, ndim, **options)
    x = torch.randn(shape)
    assert model.features(x).shape == features
    assert model(x).shape == (shape[0], 5)


@pytest.mark.parametrize(
    ("depth", "ndim", "parameters"),
    # torchvision's resnet34 and resnet152; its r3d_18 at 400 classes
    [(34, 2, 21_797_672), (152, 2, 60_192_808), (18, 3, 33_371_472)],
)
def test_parameter_counts(depth, ndim, parameters):
    with torch.device("meta"):
        model = ResNet(depth, 400 if ndim == 3 else 1000, ndim)
    assert sum(p.numel() for p in model.parameters()) == parameters


@pytest.mark.parametrize("depth", [10, 50])
def test_every_parameter_gets_a_gradient(depth):
    torch.manual_seed(0)
    model = ResNet(depth, 4, ndim=3, width=8, attention=lambda channels: CBAM3d(channels, reduction=4))
    model(torch.randn(2, 3, 4, 32, 32)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_attention_sits_after_the_last_norm_and_before_the_addition():
    class Constant(nn.Module):
        def forward(self, x):
            return torch.full_like(x, 3.0)

    model = ResNet(10, 4, ndim=2, width=8, attention=lambda channels: Constant())
    block = model.layer1[0]
    x = torch.rand(1, 8, 6, 6)  # no downsample here: the shortcut is the input
    torch.testing.assert_close(block(x), x + 3.0)


@pytest.mark.parametrize("ndim", [2, 3])
def test_identity_attention_keeps_the_logits_bit_for_bit(ndim):
    from cbam3d import create_attention

    torch.manual_seed(0)
    plain = ResNet(10, 4, ndim, width=8)
    torch.manual_seed(0)
    attended = ResNet(10, 4, ndim, width=8, attention=lambda c: create_attention("cbam", c, ndim=ndim, init="identity"))
    attended.load_state_dict(plain.state_dict(), strict=False)
    x = torch.randn(2, 3, *(4, 32, 32)[-ndim:])
    for train in (True, False):
        assert torch.equal(copy.deepcopy(plain).train(train)(x), copy.deepcopy(attended).train(train)(x))


def test_unknown_depth_and_rank():
    with pytest.raises(ValueError, match="depth must be one of 10, 18, 34, 50, 101, 152, got 20"):
        ResNet(20, 4)
    with pytest.raises(ValueError, match="ndim must be 2"):
        ResNet(10, 4, ndim=1)
    with pytest.raises(ValueError, match="attention must be callable, got 'cbam': create_model takes names"):
        ResNet(10, 4, attention="cbam")
