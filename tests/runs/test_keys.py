"""Keys that change how a run trains: each does what its description says."""

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from cbam3d import load_config, open_run, train
from cbam3d.engine.progress import no_progress
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.runs.trainer import _loss
from tests.conftest import rows_of
from tests.tiny import train_tiny


def weights_of(folder) -> dict[str, torch.Tensor]:
    return load_tensors(folder / "checkpoints" / "last.ckpt", "checkpoint")["model"]


def test_only_new_layers_learn_in_head_epochs(tiny_run, tmp_path):
    videos = tiny_run.parent / "videos"

    def trained(name, **values):
        return weights_of(train_tiny(videos, tmp_path / name, {"data.stride": 1, **values}).folder)

    def ends_after_one_epoch(items, total, text, done=0):
        if text().startswith("epoch 2/2"):
            raise KeyboardInterrupt
        return no_progress(items, total, text, done)

    plain = trained("plain", **{"model.attention": "none"})
    given = {"model.weights": str(tmp_path / "plain"), "train.head_epochs": 1, "train.epochs": 2}
    values = {**given, "data.stride": 1, "model.attention": "se"}
    with pytest.raises(KeyboardInterrupt):
        train_tiny(videos, tmp_path / "se", values, progress=ends_after_one_epoch)
    first = weights_of(tmp_path / "se")
    assert all(torch.equal(first[key], value) for key, value in plain.items())  # running statistics, too
    second = weights_of(train({"run.dir": str(tmp_path / "se")}, resume=True).folder)
    assert any(first[key].ne(second[key]).any() for key in plain)
    nothing_new = trained("same", **given, **{"model.attention": "none"})
    assert any(nothing_new[key].ne(plain[key]).any() for key in plain)
    with pytest.raises(InputError, match=r"train\.head_epochs: no pretrained weights"):
        trained("none", **{"train.head_epochs": 1, "train.epochs": 2})
    with pytest.raises(InputError, match=r"train\.head_epochs 2 leaves none of train\.epochs 2 for other layers"):
        trained("few", **given | {"train.head_epochs": 2})


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
    begun, ended = {}, []

    def init(**options):
        begun.update(options)
        return SimpleNamespace(finish=lambda: ended.append(options["id"]))

    monkeypatch.setitem(sys.modules, "wandb", SimpleNamespace(init=init))
    other = train_tiny(tiny_run.parent / "videos", tmp_path / "other" / "seed0", {"run.wandb": "clips"})
    assert (begun["name"], begun["dir"]) == ("other/seed0", other.folder)
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "se" / "seed0", {"run.wandb": "clips"})
    assert len(set(ended)) == 2  # runs of one name are runs of their own
    assert (begun["project"], begun["dir"], begun["sync_tensorboard"]) == ("clips", run.folder, True)
    assert begun["config"]["data"]["root"] == str(tiny_run.parent / "videos")
    monkeypatch.setitem(sys.modules, "wandb", None)  # importing it fails
    with pytest.raises(InputError, match=r'run\.wandb: not installed \(pip install "cbam3d\[wandb\]"\)'):
        train_tiny(tiny_run.parent / "videos", tmp_path / "third", {"run.wandb": "clips"})


def test_weights_of_classes_are_for_what_training_sees():
    """20, 20 and 5 samples; with half an epoch of the background, 11.25, 11.25 and 22.5."""
    source = SimpleNamespace(train=SimpleNamespace(labels=[0] * 20 + [1] * 20 + [2] * 5), several=False)
    source.classes = ["a", "b", "background"]
    config = load_config("motion", {"train.class_weights": "balanced"})
    for share, counts in ((0.0, [20, 20, 5]), (0.5, [11.25, 11.25, 22.5])):
        weights = _loss(config.override({"data.background": share}), source).weights
        torch.testing.assert_close(weights.double(), 15 / torch.tensor(counts).double(), rtol=1e-6, atol=0)


def test_frozen_layers_without_weights_are_warned_of(tiny_run, tmp_path, caplog):
    train_tiny(tiny_run.parent / "videos", tmp_path / "run", {"train.freeze": ["layer1.*"]})
    assert "without model.weights, frozen layers keep random values" in caplog.text
