import pytest
import torch

from cbam3d import (
    CBAM,
    create_model,
    insert_attention,
    list_attentions,
    list_insertions,
    list_models,
    remove_attention,
)
from cbam3d.attention import TAM, attention_ranks


@pytest.mark.parametrize("name", [name for name in list_models() if "/" not in name])
def test_each_of_ours_can_be_created(name):
    small = name in ("cbam_cnn", "fast_cnn", "draw", "ram")
    shape = (2, 3, 32, 32) if small else (2, 3, 4, 32, 32)
    with torch.device("meta"):
        assert create_model(name, 3).eval()(torch.zeros(shape)).shape == (2, 3)


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("torchvision/r3d_18", (1, 3, 4, 32, 32)),
        ("torchvision/mobilenet_v3_small", (1, 3, 64, 64)),
        ("pytorchvideo/x3d_xs", (1, 3, 4, 160, 160)),
        ("pytorchvideo/slowfast_r50", (1, 3, 32, 224, 224)),
        ("timm/resnet18", (1, 3, 64, 64)),
    ],
)
def test_other_libraries_networks(name, shape):
    with torch.device("meta"):
        model = create_model(name, 7, ndim=len(shape) - 2).eval()
        assert model(torch.zeros(shape)).shape == (1, 7)


def test_the_list_names_them_all():
    names = list_models()
    assert {"resnet18", "torchvision/r3d_18", "torchvision/swin3d_t", "pytorchvideo/slow_r50", "timm/resnet50"} <= set(
        names
    )
    assert len(names) == len(set(names))


def test_attention_goes_into_every_block_of_ours():
    model = create_model("resnet18", 3, width=8, attention="cbam", attention_options={"gates": ("channel",)})
    blocks = [module for module in model.modules() if isinstance(module, CBAM)]
    assert [block.gates for block in blocks] == [("channel",)] * 8


def test_none_is_no_attention():
    assert not [m for m in create_model("cbam_cnn", 3, attention="none").modules() if isinstance(m, CBAM)]
    plain = create_model("resnet10", 3, width=8, attention="none").state_dict()
    assert plain.keys() == create_model("resnet10", 3, width=8).state_dict().keys()


def test_the_rank_may_be_left_to_the_network():
    assert create_model("torchvision/resnet18", 7).eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_tam_is_told_the_frames_of_each_stage():
    model = create_model("resnet10", 3, width=8, attention="tam", attention_options={"num_frames": 8})
    assert [m.num_frames for m in model.modules() if isinstance(m, TAM)] == [8, 4, 2, 1]
    with pytest.raises(ValueError, match="needs clips, and num_frames of the network's input"):
        create_model("resnet10", 3, width=8, attention="tam")


@pytest.fixture(scope="module")
def pretrained():
    """A network of another library, and what it says of a clip."""
    torch.manual_seed(0)
    model, clip = create_model("torchvision/r3d_18", 3).eval(), torch.randn(1, 3, 4, 32, 32)
    return model, clip, model(clip)


@pytest.mark.parametrize("name", list_attentions())
def test_every_mechanism_goes_into_others_without_changing_them(name, pretrained):
    model, clip, expected = pretrained
    assert torch.equal(insert_attention(model, name, "last_stage", example=clip)(clip), expected)
    remove_attention(model)


@pytest.mark.parametrize("name", list_attentions())
def test_every_mechanism_goes_into_ours(name):
    """One word in a configuration."""
    frames = {"num_frames": 4} if name == "tam" else {}
    x = torch.randn(2, 3, 4, 32, 32)
    assert create_model("resnet10", 3, width=4, attention=name, attention_options=frames)(x).isfinite().all()
    if 2 in attention_ranks(name):
        assert create_model("resnet10", 3, 2, width=4, attention=name)(x[:, :, 0]).isfinite().all()


@pytest.mark.parametrize("name", ["resnet10", "cbam_cnn", "fast_cnn"])
def test_weights_without_attention_fill_all_but_the_attention(name, tmp_path):
    options = {"width": 8} if name == "resnet10" else {"channels": [8, 8, 8]}
    plain = create_model(name, 3, 2, attention="none", **options).eval()
    torch.save(plain.state_dict(), tmp_path / "plain.pt")
    model = create_model(name, 3, 2, attention="se", weights=tmp_path / "plain.pt", **options).eval()
    x = torch.rand(2, 3, 32, 32)
    assert torch.equal(model(x), plain(x))  # attention starts as the identity


@pytest.mark.parametrize("name", ["sk", "simam", "em_attention", "cbam"])
def test_a_networks_own_weights_give_its_own_outputs(name, tmp_path):
    """Also where the attention was trained from the paper's start."""
    torch.manual_seed(0)
    trained = create_model("resnet10", 3, 2, attention=name, width=8).eval()
    torch.save(trained.state_dict(), tmp_path / "own.pt")
    again = create_model("resnet10", 3, 2, attention=name, width=8, weights=tmp_path / "own.pt").eval()
    x = torch.rand(2, 3, 32, 32)
    torch.testing.assert_close(again(x), trained(x))


def test_options_that_name_other_things_are_refused():
    with pytest.raises(ValueError, match="'ndim'"):
        create_model("resnet10", 3, attention="se", attention_options={"ndim": 2})
    with pytest.raises(ValueError, match="num_frames of the network's input, at least 1"):
        create_model("resnet10", 3, attention="tam", attention_options={"num_frames": 0})
    with pytest.raises(ValueError, match="unknown attention ''"):
        create_model("resnet10", 3, attention="")


def test_attention_is_inserted_into_others():
    model = create_model("torchvision/r3d_18", 3, attention="cbam", attention_options={"position": "stage"})
    assert [i.where for i in list_insertions(model)] == ["layer1.1", "layer2.1", "layer3.1", "layer4.1"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"name": "resnet19"}, "did you mean 'resnet18'"),
        ({"name": "torchvision/r3d_81"}, "did you mean 'torchvision/r3d_18'"),
        ({"name": "pytorchvideo/slow_r5"}, "did you mean 'pytorchvideo/slow_r50'"),
        ({"name": "timm/resnet1888", "ndim": 2}, "did you mean 'resnet18'"),
        ({"name": "resnet18", "head": "mena"}, "did you mean 'mean'"),
        ({"name": "resnet18", "head": "mean", "head_options": {"dropot": 1}}, "did you mean 'dropout'"),
        ({"name": "resnet18", "widht": 8}, "did you mean 'width'"),
        ({"name": "resnet18", "attention": "cbmm"}, "did you mean 'cbam'"),
        ({"name": "resnet18", "attention_options": {"reduction": 4}}, "attention_options without attention"),
        ({"name": "resnet18", "weights": "KINETICS400_V2"}, "did you mean 'KINETICS400_V1'"),
        ({"name": "resnet10", "weights": "KINETICS400_V1"}, "has no named weights"),
        ({"name": "resnet10", "weights": "nowhere.pth"}, "no such weights file"),
    ],
)
def test_refusals(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_model(num_classes=3, **arguments)


@pytest.mark.parametrize("option", ["checkpoint_path", "pretrained_cfg"])
def test_weights_of_timm_are_no_option(option):
    pytest.importorskip("timm")
    with pytest.raises(ValueError, match=f"{option} is no option"):
        create_model("timm/resnet18", 2, **{option: "somewhere"})


@pytest.mark.parametrize(
    ("name", "size"), [("x3d_xs", (4, 160, 160)), ("r2plus1d_r50", (16, 224, 224)), ("slow_r50", (8, 224, 224))]
)
def test_pytorchvideos_networks_give_logits(name, size):
    torch.manual_seed(0)
    model = create_model(f"pytorchvideo/{name}", 7).eval()
    with torch.no_grad():
        total = model(torch.randn(1, 3, *size)).sum(1)
    assert (total - 1).abs() > 1e-3
