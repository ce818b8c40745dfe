"""Another head on a network."""

import copy

import pytest
import torch
from torch import nn

from cbam3d import create_model, list_insertions
from cbam3d.models.headed import HeadedNetwork, cut

IMAGE, CLIP = (2, 3, 64, 64), (2, 3, 8, 64, 64)
NETWORKS = [
    ("resnet10", 2, IMAGE, "layer4"),
    ("resnet10", 3, CLIP, "layer4"),
    ("torchvision/resnet18", 2, IMAGE, "layer4"),
    ("torchvision/mobilenet_v3_small", 2, IMAGE, "features"),
    ("torchvision/r3d_18", 3, CLIP, "layer4"),
    ("timm/tf_efficientnet_lite0", 2, IMAGE, "bn2"),
    ("timm/convnext_atto", 2, IMAGE, "norm_pre"),
]


@pytest.mark.parametrize(("name", "ndim", "shape", "layer"), NETWORKS)
def test_the_head_takes_the_last_features(name, ndim, shape, layer):
    pytest.importorskip("timm") if name.startswith("timm/") else None
    torch.manual_seed(0)
    plain = create_model(name, 5, ndim=ndim, attention="none").eval()
    x, kept = torch.randn(shape), []
    handle = plain.get_submodule(layer).register_forward_hook(lambda module, args, output: kept.append(output))
    plain(x)
    handle.remove()
    model = create_model(name, 5, ndim=ndim, attention="none", head="mean", weights=plain.state_dict()).eval()
    assert isinstance(model, HeadedNetwork)
    assert torch.equal(model.features(x), kept[0])
    pooled = kept[0].mean(tuple(range(2, ndim + 2)))
    torch.testing.assert_close(model(x), model.head.classifier(pooled))
    assert sorted(model.weights_report.new) == ["head.classifier.bias", "head.classifier.weight"]
    model(x).sum().backward()  # nothing behind the features is left to learn
    assert all(p.grad is not None for p in model.parameters())


def test_tokens_and_channels_last_come_channels_first():
    torch.manual_seed(0)
    model = create_model("torchvision/swin_t", 5, ndim=3, head="mean").eval()
    assert model.features(torch.randn(1, 3, 2, 64, 64)).shape == (1, 768, 2, 2, 2)
    vit = pytest.importorskip("timm").create_model("vit_tiny_patch16_224", num_classes=5, img_size=64).eval()
    channels = cut(vit, {"head.weight", "head.bias"}, torch.zeros(1, 3, 64, 64))
    assert channels == 192
    assert vit(torch.randn(2, 3, 64, 64)).shape == (2, 192, 17)


@pytest.mark.parametrize("grid", [None, 1])
def test_a_head_sees_tokens_of_frames_one_frame_after_the_other(grid):
    torch.manual_seed(0)
    options = {} if grid is None else {"grid": grid}
    model = create_model("torchvision/vit_b_32", 5, ndim=3, head="statistics", head_options=options).eval()
    x = torch.randn(1, 3, 3, 224, 224)
    features = model.features(x)
    assert features.shape == (1, 768, 3, 50 if grid is None else 1, 1)
    images = model.backbone.backbone(x[0].movedim(1, 0))  # (T, C, L)
    expected = images.movedim(0, 1)[None]
    torch.testing.assert_close(features[..., 0], expected if grid is None else expected.mean(3, keepdim=True))


def test_the_head_of_a_source_is_not_taken_for_the_new_one():
    pytest.importorskip("timm")
    source = create_model("timm/convnext_atto", 7).state_dict()
    assert "head.norm.weight" in source
    model = create_model("timm/convnext_atto", 5, head="attention", weights=source)
    assert {key for key in model.state_dict() if key.startswith("head.")} <= set(model.weights_report.new)
    again = create_model("timm/convnext_atto", 5, head="attention", weights=model.state_dict())  # of such a network
    assert not again.weights_report.new


class WithBackbone(nn.Module):
    """A network whose own attribute has the name of a wrapper."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.backbone = create_model("resnet10", num_classes, ndim=2, width=8)

    def forward(self, x):
        return self.backbone(x)


def test_a_network_that_calls_a_part_of_it_backbone_takes_weights_of_other_classes():
    source, name = WithBackbone(7), f"{__name__}:WithBackbone"
    model = create_model(name, 5, weights=source.state_dict())
    assert sorted(model.weights_report.new) == ["backbone.fc.bias", "backbone.fc.weight"]
    by_order = create_model(name, 5, weights=source.state_dict(), weights_match="order")
    assert sorted(by_order.weights_report.new) == ["backbone.fc.bias", "backbone.fc.weight"]


def test_features_are_averaged_to_a_grid():
    model = create_model("resnet10", 5, ndim=3, width=8, head="attention", head_options={"grid": 2, "num_heads": 2})
    x = torch.randn(CLIP)
    whole = model.backbone(x)
    assert whole.shape == (2, 64, 1, 4, 4)
    expected = whole.unflatten(4, (2, 2)).unflatten(3, (2, 2)).mean((4, 6))
    torch.testing.assert_close(model.features(x), expected)


def test_frames_attention_and_head_together():
    options = {"attention": "tsm", "head": "attention", "head_options": {"num_heads": 2}, "width": 8}
    model = create_model("resnet10", 5, ndim=3, as_video="frames", **options)
    assert next(one.where for one in list_insertions(model)) == "backbone.backbone.layer1.0.attention"
    assert model(torch.randn(2, 3, 4, 64, 64)).shape == (2, 5)
    other = copy.deepcopy(model).eval()
    x = torch.randn(2, 3, 4, 64, 64)
    assert torch.equal(other(x), model.eval()(x))


def test_weights_go_from_one_head_to_another():
    first = create_model("resnet10", 5, ndim=3, as_video="frames", width=8, head="csra")
    second = create_model("resnet10", 7, ndim=3, as_video="frames", width=8, head="mean", weights=first.state_dict())
    assert torch.equal(first.backbone.backbone.conv1.weight, second.backbone.backbone.conv1.weight)
    plain = create_model("resnet10", 5, ndim=3, as_video="frames", width=8, weights=first.state_dict())
    assert torch.equal(plain.backbone.conv1.weight, first.backbone.backbone.conv1.weight)
    assert plain.weights_report.new == ["backbone.fc.weight", "backbone.fc.bias"]
    same = create_model("resnet10", 5, ndim=3, as_video="frames", width=8, head="csra", weights=first.state_dict())
    assert torch.equal(same.head.classifier.weight, first.head.classifier.weight)
    assert same.weights_report.complete


def test_networks_without_single_features_are_refused():
    class Two(nn.Module):
        def __init__(self, num_classes=5):
            super().__init__()
            self.a, self.b, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, num_classes)

        def forward(self, x):
            return self.fc(torch.cat([self.a(x).mean((2, 3)), self.b(x).mean((2, 3))], 1))

    with pytest.raises(ValueError, match="no single features for another head: its own reads more than b"):
        cut(Two(), {"fc.weight", "fc.bias"})
    with pytest.raises(ValueError, match="no features with positions"):
        cut(nn.Sequential(nn.Conv2d(3, 4, 64), nn.Flatten(), nn.Linear(4, 5)), {"2.weight"}, torch.zeros(1, 3, 64, 64))
    with pytest.raises(ValueError, match="head_options without head: grid"):
        create_model("resnet10", 5, head_options={"grid": 1})


def test_attention_at_the_features_is_before_the_head():
    """At the layer where a network is cut, hooks of both meet."""
    model = create_model(
        "torchvision/r3d_18", 5, head="mean", attention="cbam", attention_options={"position": "layer4.1"}
    )
    (block,) = (one.block for one in list_insertions(model))
    model(torch.randn(2, 3, 8, 32, 32)).sum().backward()
    assert any(p.grad is not None and p.grad.any() for p in block.parameters())


@pytest.mark.parametrize("name", ["stn", "deformable", "non_local"])
def test_a_network_without_values_can_be_cut(name):
    """As before training, where only the shapes are of interest."""
    with torch.device("meta"):
        model = create_model("resnet10", 5, ndim=2, attention=name, head="csra", width=8)
    assert model(torch.zeros(2, 3, 32, 32, device="meta")).shape == (2, 5)


@pytest.mark.parametrize(("name", "channels"), [("timm/selecsls42", 1280), ("timm/mambaout_femto", 288)])
def test_last_features_with_one_position_on_small_inputs_are_found(name, channels):
    """The first input tried leaves one position in SelecSLS's last stage, and as many rows as columns in MambaOut's."""
    pytest.importorskip("timm")
    model = create_model(name, 5, ndim=2, head="mean").eval()
    assert model.head.classifier.in_features == channels
    assert model(torch.randn(1, 3, 160, 224)).shape == (1, 5)
