"""The input that pretrained weights want."""

import logging

import pytest
import torch
from torchvision.models import ResNet18_Weights, get_model

from cbam3d import open_run
from cbam3d.config import Config, DataConfig, load_config
from cbam3d.errors import InputError
from cbam3d.runs.own_input import with_own_input
from tests.tiny import train_tiny

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
KINETICS = ((0.432, 0.395, 0.376), (0.228, 0.221, 0.217))


def test_without_weights_it_is_that_of_kinetics():
    assert with_own_input(Config()).data.scaling == KINETICS
    assert Config().data.scaling == KINETICS


def test_torchvisions_weights_bring_theirs(caplog):
    config = load_config({"model.name": "torchvision/resnet18", "model.attention": "none"})
    with caplog.at_level(logging.INFO, "cbam3d"):
        data = with_own_input(config.override({"model.weights": "IMAGENET1K_V1"})).data
    assert data.mean == tuple(ResNet18_Weights.IMAGENET1K_V1.transforms().mean)
    assert data.std == tuple(ResNet18_Weights.IMAGENET1K_V1.transforms().std)
    assert "input as torchvision/resnet18 wants it: data.mean [0.485, 0.456, 0.406]" in caplog.text
    given = {"model.weights": "IMAGENET1K_V1", "data.mean": [0.1, 0.2, 0.3], "data.std": [1.0, 1.0, 1.0]}
    assert with_own_input(config.override(given)).data.scaling == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match=r"unknown weights of timm/vit_base_patch16_224 'dyno': did you mean 'dino'"):
        with_own_input(load_config({"model.name": "timm/vit_base_patch16_224", "model.weights": "dyno"}))
    with pytest.raises(InputError, match="did you mean 'IMAGENET1K_V1'"):
        with_own_input(config.override({"model.weights": "IMAGENET1K_V7"}))


def test_timms_architectures_bring_theirs(tmp_path):
    timm = pytest.importorskip("timm")
    path = tmp_path / "w.pt"
    torch.save(timm.create_model("tf_efficientnet_lite0", num_classes=3).state_dict(), path)
    config = load_config({"model.name": "timm/tf_efficientnet_lite0", "model.weights": str(path)})
    assert with_own_input(config).data.scaling == ((0.5,) * 3, (0.5,) * 3)


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"model.name": "torchvision/resnet18"}, IMAGENET),
        ({"model.name": "resnet50", "model.as_video": "frames"}, IMAGENET),
        ({"model.name": "torchvision/r3d_18"}, KINETICS),
        ({"model.name": "resnet10"}, IMAGENET),  # inflated
        ({"model.name": "resnet50"}, IMAGENET),
    ],
)
def test_of_a_file_the_usual_weights_of_the_network_are_assumed(tmp_path, given, expected):
    torch.save(get_model("resnet18").state_dict(), tmp_path / "w.pt")
    config = load_config({**given, "model.weights": str(tmp_path / "w.pt")})
    data = with_own_input(config).data
    assert data.scaling == (pytest.approx(expected[0], abs=1e-3), pytest.approx(expected[1], abs=2e-3))


def test_of_a_file_of_a_video_network_kinetics_is_assumed(tmp_path):
    torch.save(get_model("r3d_18").state_dict(), tmp_path / "w.pt")
    for name in ("resnet18", "resnet10"):
        data = with_own_input(load_config({"model.name": name, "model.weights": str(tmp_path / "w.pt")})).data
        assert data.scaling == (pytest.approx(KINETICS[0], abs=1e-3), pytest.approx(KINETICS[1], abs=2e-3))


def test_each_tag_of_timm_has_its_own(monkeypatch):
    pytest.importorskip("timm")
    for tag, expected in (("pretrained", 0.5), ("dino", 0.485), ("augreg_in21k", 0.5)):
        config = load_config({"model.name": "timm/vit_base_patch16_224", "model.weights": tag})
        assert with_own_input(config).data.scaling[0][0] == expected


def test_a_resumed_run_keeps_what_its_weights_wanted():
    usual = DataConfig()
    begun = usual.model_copy(
        update={"num_frames": 8, "size": 224, "short_side": 256, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    )
    data = with_own_input(Config(), begun, whole=True).data
    assert (data.num_frames, data.size, data.short_side, data.mean) == (8, 224, 256, (0.5,) * 3)
    assert with_own_input(Config().override({"data.num_frames": 12}), begun, whole=True).data.num_frames == 12
    assert with_own_input(Config(), begun).data.num_frames == usual.num_frames  # the run's own, changed


def test_a_pushed_run_brings_its_own(tiny_run, tmp_path):
    run = open_run(tiny_run)
    folder = run.save_pretrained(tmp_path / "pushed")
    for weights in (tmp_path / "pushed" / "model.safetensors", tiny_run):
        config = load_config({"model.weights": str(weights)})
        assert with_own_input(config).data.scaling == run.config.data.scaling
    assert folder == tmp_path / "pushed"


def test_a_run_brings_its_own(tmp_path):
    from cbam3d.data import motion

    motion.render(tmp_path / "videos", num_groups=2)
    first = train_tiny(tmp_path / "videos", tmp_path / "a", {"data.mean": [0.1, 0.2, 0.3], "data.std": [1.0, 2.0, 3.0]})
    assert first.config.data.scaling == ((0.1, 0.2, 0.3), (1.0, 2.0, 3.0))
    second = train_tiny(tmp_path / "videos", tmp_path / "b", {"model.weights": str(tmp_path / "a")})
    assert second.config.data.scaling == first.config.data.scaling


def test_both_or_none():
    with pytest.raises(InputError, match=r"data.mean and data.std belong together"):
        Config().override({"data.mean": [0.1, 0.2, 0.3]})


def test_pytorchvideos_networks_and_runs_under_any_name_bring_theirs(tiny_run, tmp_path):
    saved = torch.load(tiny_run / "checkpoints/last.ckpt", weights_only=True)
    saved["config"]["data"] |= {"mean": [0.5] * 3, "std": [0.25] * 3}
    torch.save(saved, tmp_path / "m.pth")
    config = load_config({"model.name": "resnet10", "model.weights": str(tmp_path / "m.pth")})
    assert with_own_input(config).data.scaling == ((0.5,) * 3, (0.25,) * 3)
    torch.save({"a": torch.zeros(1)}, tmp_path / "slow.pyth")
    config = load_config({"model.name": "pytorchvideo/slow_r50", "model.weights": str(tmp_path / "slow.pyth")})
    assert with_own_input(config).data.scaling == ((0.45,) * 3, (0.225,) * 3)
