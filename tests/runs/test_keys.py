"""Keys that change how a run trains: each does what its description says."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cbam3d import open_run, train
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from tests.conftest import rows_of
from tests.tiny import train_tiny


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoints" / "last.ckpt", "checkpoint")["model"]


def test_only_new_layers_learn_in_head_epochs(tiny_run, tmp_path):
    videos = tiny_run.parent / "videos"

    def trained(name, **values):
        return weights_of(train_tiny(videos, tmp_path / name, {"data.stride": 1, **values}).folder)

    plain = trained("plain", **{"model.attention": "none"})
    given = {"model.weights": str(tmp_path / "plain"), "train.head_epochs": 1}
    first = trained("first", **given, **{"model.attention": "se"})
    assert all(torch.equal(first[key], value) for key, value in plain.items())  # running statistics, too
    second = trained("second", **given, **{"model.attention": "se", "train.epochs": 2})
    assert any(first[key].ne(second[key]).any() for key in plain)
    nothing_new = trained("same", **given, **{"model.attention": "none"})
    assert any(nothing_new[key].ne(plain[key]).any() for key in plain)
    with pytest.raises(InputError, match=r"train\.head_epochs: no pretrained weights"):
        trained("none", **{"train.head_epochs": 1})


def test_batches_of_an_epoch_can_be_limited(tiny_run, tmp_path):
    values = {"train.batch_size": 2, "train.limit_batches": 3, "train.log_every": 1}
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "run", values)
    assert [row["step"] for row in rows_of(run.folder / "steps.csv")] == ["1", "2", "3"]


def test_the_network_is_compiled_and_keeps_its_keys(tiny_run, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(nn.Module, "compile", lambda self, *args, **options: compiled.append(self))
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "run", {"data.stride": 1, "run.compile": True})
    assert [type(one).__name__ for one in compiled] == ["ResNet"]
    assert weights_of(run.folder).keys() == weights_of(tiny_run).keys()


def test_images_on_the_device_give_the_same_weights(picture_run, tmp_path):
    config = open_run(picture_run).config
    run = train(config.override({"data.on_device": True, "run.dir": str(tmp_path / "run")}))
    before = weights_of(picture_run)
    assert all(torch.equal(value, before[key]) for key, value in weights_of(run.folder).items())


def test_weights_and_biases_follow_the_run(tiny_run, tmp_path, monkeypatch):
    begun: dict = {}
    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=begun.update))
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "run", {"run.wandb": "clips"})
    assert (begun["project"], begun["dir"], begun["sync_tensorboard"]) == ("clips", run.folder, True)
    assert begun["config"]["data"]["root"] == str(tiny_run.parent / "videos")
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    with pytest.raises(InputError, match=r'run\.wandb: not installed \(pip install "cbam3d\[wandb\]"\)'):
        train_tiny(tiny_run.parent / "videos", tmp_path / "other", {"run.wandb": "clips"})
