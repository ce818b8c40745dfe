"""The input that pretrained weights want."""

import logging

import pytest
import torch
from torchvision.models import ResNet18_Weights, get_model

from cbam3d.config import Config, load_config
from cbam3d.errors import InputError
from cbam3d.runs.own_input import with_own_input
from tests.tiny import train_tiny

KINETICS = ((0.432, 0.395, 0.376), (0.228, 0.221, 0.217))


def test_without_weights_it_is_that_of_kinetics():
    assert with_own_input(Config()).data.scaling == KINETICS
    assert Config().data.scaling == KINETICS


def test_torchvisions_weights_bring_theirs(caplog):
    config = load_config({"model.name": "torchvision/resnet18", "model.attention": "none"})
    with caplog.at_level(logging.INFO):
        data = with_own_input(config.override({"model.weights": "IMAGENET1K_V1"})).data
    assert data.mean == tuple(ResNet18_Weights.IMAGENET1K_V1.transforms().mean)
    assert data.std == tuple(ResNet18_Weights.IMAGENET1K_V1.transforms().std)
    assert "input as torchvision/resnet18 wants it: data.mean [0.485, 0.456, 0.406]" in caplog.text
    given = {"model.weights": "IMAGENET1K_V1", "data.mean": [0.1, 0.2, 0.3], "data.std": [1.0, 1.0, 1.0]}
    assert with_own_input(config.override(given)).data.scaling == ((0.1, 0.2, 0.3), (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="did you mean 'IMAGENET1K_V1'"):
        with_own_input(config.override({"model.weights": "IMAGENET1K_V7"}))


def test_timms_architectures_bring_theirs(tmp_path):
    timm = pytest.importorskip("timm")
    path = tmp_path / "w.pt"
    torch.save(timm.create_model("tf_efficientnet_lite0", num_classes=3).state_dict(), path)
    config = load_config({"model.name": "timm/tf_efficientnet_lite0", "model.weights": str(path)})
    assert with_own_input(config).data.scaling == ((0.5,) * 3, (0.5,) * 3)


def test_a_file_from_somewhere_brings_nothing(tmp_path):
    torch.save(get_model("resnet18").state_dict(), tmp_path / "w.pt")
    config = load_config({"model.name": "torchvision/resnet18", "model.weights": str(tmp_path / "w.pt")})
    assert with_own_input(config).data.scaling == KINETICS


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
