import pytest
import torch
import torchvision
from torch import nn

from cbam3d import create_model
from cbam3d.models.inflate import inflate


@pytest.mark.parametrize("name", ["torchvision/resnet18", "torchvision/mobilenet_v3_small", "timm/resnet18"])
def test_a_still_clip_has_the_logits_of_its_image(name):
    """With the whole kernel in its middle tap, as the ends of a clip are padded; it is spread evenly over the taps."""
    pytest.importorskip("timm") if name.startswith("timm/") else None
    torch.manual_seed(0)
    images = create_model(name, 5, ndim=2).eval()
    clips = create_model(name, 5, ndim=3, as_video="inflate", weights=images.state_dict()).eval()
    image = torch.randn(1, 3, 64, 64)
    kernels = [module.weight for module in clips.modules() if isinstance(module, nn.Conv3d)]
    assert {kernel.shape[2] for kernel in kernels} == {1, 3}
    with torch.no_grad():
        for kernel in kernels:
            taps = kernel.shape[2]
            assert all(torch.equal(kernel[:, :, 0], kernel[:, :, k]) for k in range(taps))
            kernel.copy_(torch.stack([kernel[:, :, 0] * taps * (k == taps // 2) for k in range(taps)], 2))
        still = image.unsqueeze(2).expand(1, 3, 5, 64, 64)
        torch.testing.assert_close(clips(still), images(image), rtol=1e-3, atol=1e-4)


def test_what_cannot_be_inflated_is_named():
    class Functional(nn.Module):
        """It averages H and W itself, which would be T and H."""

        def __init__(self):
            super().__init__()
            self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.LazyLinear(5)

        def forward(self, x):
            return self.fc(self.conv(x).mean((2, 3)).flatten(1))

    with pytest.raises(ValueError, match="Functional cannot be inflated"):
        inflate(Functional())
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.InstanceNorm2d(4), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(ValueError, match="1 is a InstanceNorm2d"):
        inflate(network)


def test_what_is_frozen_stays_so_and_doubles_are_inflated():
    network = torchvision.models.resnet18(num_classes=3).requires_grad_(False).double()
    network.fc.requires_grad_()
    inflated = inflate(network)
    assert {name for name, p in inflated.named_parameters() if p.requires_grad} == {"fc.weight", "fc.bias"}
    assert inflated(torch.randn(1, 3, 4, 32, 32).double()).dtype == torch.float64


def test_every_layer_keeps_its_mode():
    for training in (True, False):
        clips = inflate(torchvision.models.resnet18(num_classes=5).train(training))
        assert {module.training for module in clips.modules()} == {training}
    images = torchvision.models.resnet18(num_classes=5).train()
    images.layer1.eval()  # of some one's own
    clips = inflate(images)
    assert {module.training for module in clips.layer1.modules()} == {False}
    assert {module.training for module in clips.layer2.modules()} == {True}


def test_a_gate_over_the_wrong_axes_is_seen_where_branches_begin_at_zero():
    timm = pytest.importorskip("timm")
    for zero in (True, False):
        with pytest.raises(ValueError, match="as it computes in two dimensions outside its layers"):
            inflate(timm.create_model("seresnet18", num_classes=5, zero_init_last=zero))
    network = timm.create_model("resnet18", num_classes=5)
    zeros = {name for name, p in network.named_parameters() if not p.any()}
    assert {name for name, p in inflate(network).named_parameters() if not p.any()} == zeros
    assert "layer1.0.bn2.weight" in zeros
