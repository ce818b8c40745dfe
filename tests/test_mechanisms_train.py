"""Every mechanism and every head trains: three epochs on a cut of the demo's videos."""

import csv
import math
from pathlib import Path

import pytest

from cbam3d import list_attentions, prepare
from cbam3d.attention import list_heads
from cbam3d.data import motion
from tests.tiny import train_tiny

VALUES = {
    "data.test_fraction": 0.2,
    "data.short_side": 48,
    "data.size": 48,
    "augment.crop_scale": None,
    "train.epochs": 3,
    "train.learning_rate": 0.004,
    "train.warmup_epochs": 0.5,
    "train.label_smoothing": 0.0,
    "eval.num_clips": 1,
    "eval.every_epochs": 3,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    motion.render(root, num_groups=12)
    prepare("folder", root)
    return root


@pytest.mark.slow
@pytest.mark.parametrize(
    ("part", "name"), [*(("attention", name) for name in list_attentions()), *(("head", name) for name in list_heads())]
)
def test_the_loss_falls(videos, tmp_path, part, name):
    run = train_tiny(videos, tmp_path / "run", {**VALUES, f"model.{part}": name})
    with open(run.folder / "metrics.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0] - 0.02
