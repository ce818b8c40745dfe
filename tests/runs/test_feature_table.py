"""Features as a table."""

import json
import shutil

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from safetensors import safe_open

from cbam3d import create_model, features, open_dataset, prepare
from cbam3d.data import motion
from cbam3d.errors import InputError
from cbam3d.runs import feature_cache
from tests.tiny import TINY, train_tiny

FRAMES = {"model.as_video": "frames", "model.attention": "none", "data.size": [24, 32]}


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    root = tmp_path_factory.mktemp("videos")
    motion.render(root, num_groups=2)
    prepare("folder", root)
    return root


def names_of(split):
    return [split.name(i) for i in range(len(split))]


@pytest.fixture(scope="module")
def run(videos, tmp_path_factory):
    return train_tiny(videos, tmp_path_factory.mktemp("runs") / "frames", FRAMES)


def test_a_row_is_a_file_and_a_view(run, videos, tmp_path):
    table = pq.read_table(features(run, output=tmp_path / "f.parquet"))
    assert table.column_names == ["path", "label", "group", "split", "view", "start_seconds", "end_seconds", "features"]
    rows = table.to_pylist()
    assert len(rows) == 16 * 2  # two clips each
    assert {row["split"] for row in rows} == {"train", "test"}
    assert not list(tmp_path.glob("*.parts"))
    test = open_dataset(run.config).test
    inner = run.model().backbone
    for i in range(len(test)):
        clips, label = test[i]
        own = [row for row in rows if row["path"] == test.name(i)]
        assert [row["view"] for row in own] == [0, 1]
        assert {row["label"] for row in own} == {test.classes[label]}
        assert own[0]["start_seconds"] < own[1]["start_seconds"] < own[1]["end_seconds"]
        for row, clip in zip(own, clips, strict=True):
            with torch.no_grad():  # by hand: every frame through the image network, up to its pooling
                pooled = inner.features(clip.transpose(0, 1)).mean((0, 2, 3))
            np.testing.assert_allclose(row["features"], pooled.numpy(), rtol=2e-2, atol=2e-3)


def test_splits_are_those_of_the_run(run, videos, tmp_path):
    """Videos that came later would move others from training to test, were the split made again."""
    shutil.copytree(videos, tmp_path / "videos")
    (tmp_path / "videos" / "manifest.csv").unlink()
    again = train_tiny(tmp_path / "videos", tmp_path / "run", FRAMES)
    before = {
        name: split for split in ("train", "test") for name in names_of(getattr(open_dataset(again.config), split))
    }
    for path in sorted((tmp_path / "videos").rglob("*.mp4"))[::2]:
        shutil.copy(path, path.with_name(f"a_{path.name}"))
    table = pq.read_table(features(again, output=tmp_path / "f.parquet")).to_pylist()
    assert {row["path"]: row["split"] for row in table} == before


def test_frames_layers_views_and_another_format(run, tmp_path):
    path = features(run, output=tmp_path / "f.safetensors", layer="backbone.layer2", per="frame", views=3)
    with safe_open(path, "pt") as file:
        found, rows = file.get_tensor("features"), json.loads(file.metadata()["rows"])
    assert found.shape == (16 * 3, 4, 16)  # four frames; the second stage of width 8
    assert [row["view"] for row in rows[:4]] == [0, 1, 2, 0]
    assert found[0].ne(found[1]).any()  # random views


def test_any_network_on_any_data(videos, tmp_path):
    torch.manual_seed(0)
    network = create_model("resnet10", 3, width=8, attention="none")
    data = {**TINY, "data.root": str(videos)}
    table = pq.read_table(features(network, data, output=tmp_path / "f.parquet"))
    assert len(table["features"][0]) == 64
    table = pq.read_table(
        features(None, {**data, "model.name": "torchvision/r3d_18", "model.options": {}}, output=tmp_path / "g.parquet")
    )
    assert len(table["features"][0]) == 512


def test_a_network_keeps_no_hook(videos, tmp_path):
    network = create_model("resnet10", 8, width=8)
    hooks = {name: len(module._forward_hooks) for name, module in network.named_modules()}
    features(network, {**TINY, "data.root": str(videos)}, output=tmp_path / "a.parquet", layer="layer1")
    assert {name: len(module._forward_hooks) for name, module in network.named_modules()} == hooks


def test_it_goes_on_where_it_was(run, tmp_path, monkeypatch):
    original, count = feature_cache.FeatureCache.write, 0

    def failing(self, stamp, value):
        nonlocal count
        count += 1
        if count == 5:
            raise KeyboardInterrupt
        original(self, stamp, value)

    monkeypatch.setattr(feature_cache.FeatureCache, "write", failing)
    with pytest.raises(KeyboardInterrupt):
        features(run, output=tmp_path / "f.parquet")
    features(run, output=tmp_path / "f.parquet")
    assert count == 5 + 12  # 16 files, 4 were kept
    assert pq.read_table(tmp_path / "f.parquet").num_rows == 32


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"output": "f.csv"}, r"written as .parquet or .safetensors"),
        ({"output": "f.parquet", "layer": "backbone.layer9"}, "did you mean 'backbone.layer"),
        ({"output": "f.parquet", "per": "pixel"}, "per must be clip or frame"),
        ({"output": "f.parquet", "views": -1}, "views must be at least 0"),
    ],
)
def test_mistakes(run, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        features(run, **{**options, "output": tmp_path / options["output"]})


def test_a_network_needs_data(tmp_path):
    with pytest.raises(InputError, match="a network needs data"):
        features(create_model("resnet10", 3), output=tmp_path / "f.parquet")
