"""Heads on features that were computed once."""

import json
import logging
import os
import shutil
import time
from pathlib import Path

import pytest
import torch

from cbam3d import create_model, load_run, open_run, train
from cbam3d.data import motion
from cbam3d.errors import InputError
from cbam3d.models.headed import HeadedNetwork
from cbam3d.runs import feature_cache
from cbam3d.runs.feature_cache import FeatureCache
from tests.tiny import TINY

PROBE = {
    **TINY,
    "model.attention": "none",
    "model.as_video": "frames",
    "model.head": "statistics",
    "model.head_options": {"grid": 1},
    "data.test_fraction": 0.4,
    "data.num_workers": 0,
    "augment.crop_scale": [0.5, 1.0],
    "train.freeze": ["backbone.*"],
    "train.cached_views": 3,
    "train.epochs": 5,
    "eval.num_clips": 2,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    motion.render(root, num_groups=3)
    return root


@pytest.fixture(scope="module")
def probe(videos, tmp_path_factory):
    return train({**PROBE, "data.root": str(videos)}, run_dir=tmp_path_factory.mktemp("runs") / "probe")


def test_the_network_scores_as_its_features_did(probe):
    """Evaluation runs the whole network on the files."""
    again = probe.evaluate()
    assert again.scores["loss"] == pytest.approx(probe.metrics["loss"], abs=2e-3)  # features are kept in half precision
    assert again.scores["video_top1"] == probe.metrics["video_top1"]


def test_only_the_head_has_learned(probe):
    first = open_run(probe.path).config
    fresh = train({"config": first, "train.epochs": 1}, run_dir=probe.path.parent / "one").model()
    model = probe.model()
    assert isinstance(model, HeadedNetwork)
    assert not model.takes_features
    changed = {
        key.split(".")[0]
        for key, value in model.state_dict().items()
        if not torch.equal(value, fresh.state_dict()[key])
    }
    assert changed == {"head"}


def test_it_predicts_and_exports_as_a_whole(probe, videos):
    file = next(videos.rglob("*.mp4"))
    assert len(load_run(probe.path)(file)) == 5
    assert probe.export()[1] < 1e-3


def computed(monkeypatch) -> list[int]:
    """How many items each computation has."""
    counts: list[int] = []
    inner = feature_cache.ViewBatches

    def batches(items, *others):
        counts.append(len(items))
        return inner(items, *others)

    monkeypatch.setattr(feature_cache, "ViewBatches", batches)
    return counts


def test_runs_share_a_cache_and_a_changed_file_or_setting_is_computed_anew(videos, tmp_path, monkeypatch):
    root = shutil.copytree(videos, tmp_path / "videos")
    counts = computed(monkeypatch)
    config = {**PROBE, "data.root": str(root), "train.cache": str(tmp_path / "cache")}
    first = train(config, run_dir=tmp_path / "a")
    total = sum(counts)
    assert total == 24  # train and test
    counts.clear()
    again = train(config, run_dir=tmp_path / "b")
    assert counts == []
    assert torch.equal(first.model().head.classifier.weight, again.model().head.classifier.weight)
    train({**config, "run.seed": 1, "model.weights": str(tmp_path / "a")}, run_dir=tmp_path / "c")  # the same backbone
    assert counts == []
    changed = next(root.rglob("*.mp4"))
    later = time.time() + 100
    os.utime(changed, (later, later))
    (root / "manifest.csv").unlink(missing_ok=True)
    train(config, run_dir=tmp_path / "d")
    assert counts == [1]
    counts.clear()
    train({**config, "data.num_frames": 5}, run_dir=tmp_path / "e")
    assert sum(counts) == total
    facts = [json.loads(path.read_text()) for path in (tmp_path / "cache").glob("*/facts.json")]
    assert {one["data"]["num_frames"] for one in facts} == {TINY["data.num_frames"], 5}


def test_a_damaged_entry_is_computed_anew(tmp_path):
    cache = FeatureCache(tmp_path, {"weights": "x"})
    assert cache.read("a|1|2") is None
    cache.write("a|1|2", torch.full((2, 3), 0.5))
    assert torch.equal(cache.read("a|1|2"), torch.full((2, 3), 0.5).half())
    assert cache.read("a|1|3") is None  # the file has changed
    assert FeatureCache(tmp_path, {"weights": "y"}).read("a|1|2") is None
    cache.path("a|1|2").write_bytes(b"nothing")
    assert cache.read("a|1|2") is None
    cache.write("a|1|2", torch.tensor([[1e6]]))  # beyond half precision
    assert cache.read("a|1|2").item() == 1e6


def test_an_unreadable_video_is_counted(videos, tmp_path):
    root = shutil.copytree(videos, tmp_path / "videos")
    run = train({**PROBE, "data.root": str(root)}, run_dir=tmp_path / "a")
    broken = root / run.path.joinpath("manifest.csv").read_text().splitlines()[1].split(",")[0]
    size = broken.stat().st_size
    broken.write_bytes(b"\0" * size)
    with pytest.raises(InputError, match=r"no features|could not be read|changed since"):
        train({"data.max_bad_videos": 0}, run_dir=tmp_path / "a", resume=True)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"train.freeze": []}, r"backbone.conv1.weight is trained|is trained, so its features change"),
        ({"model.head": None, "model.head_options": {}, "train.freeze": ["layer1.*"]}, "needs a model.head"),
        ({"augment.cutmix": 1.0}, "augment.cutmix cuts pictures"),
    ],
)
def test_what_does_not_go_with_features_is_refused(videos, tmp_path, values, message):
    with pytest.raises(InputError, match=message):
        train({**PROBE, "model.as_video": None, "data.root": str(videos), **values}, run_dir=tmp_path / "run")


def test_a_run_that_is_resumed_has_the_features_of_its_own_backbone(videos, tmp_path):
    """Of pretrained weights, which no seed gives back."""
    torch.manual_seed(0)
    torch.save(create_model("resnet10", 8, ndim=2, width=8).state_dict(), tmp_path / "weights.pt")
    values = {**PROBE, "data.root": str(videos), "model.weights": str(tmp_path / "weights.pt"), "train.epochs": 1}
    run = train(values, run_dir=tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run/features").iterdir())
    run = train({"train.epochs": 2}, run_dir=tmp_path / "run", resume=True)
    assert sorted(path.name for path in (tmp_path / "run/features").iterdir()) == kept
    assert run.evaluate().scores["loss"] == pytest.approx(run.metrics["loss"], abs=2e-3)


def test_features_depend_on_the_reach_of_clips(probe):
    other = probe.config.override({"data.reach": 0.5})
    model = probe.model()
    assert feature_cache.facts_of(other, model) != feature_cache.facts_of(probe.config, model)


def test_epochs_that_take_no_time_have_no_line_each(videos, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    values = {**PROBE, "data.root": str(videos), "train.epochs": 6, "eval.every_epochs": 3}
    train(values, run_dir=tmp_path / "run")
    lines = [line.split()[1] for line in caplog.messages if line.startswith("epoch")]
    assert lines == ["1/6", "3/6", "6/6"]
