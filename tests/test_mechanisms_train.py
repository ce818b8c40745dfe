"""Every mechanism trains: three epochs on a cut of the demo's videos."""

import csv
import math
from pathlib import Path

import pytest

from cbam3d import list_attentions
from cbam3d.cli import main
from cbam3d.data import motion
from tests.tiny import TINY


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    motion.render(root, num_groups=12)
    assert main(["prepare", "folder", "--root", str(root)]) == 0
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", list_attentions())
def test_the_loss_falls(videos, tmp_path, name):
    run = tmp_path / "run"
    arguments = f"--data.root {videos} --run.dir {run} --data.test_fraction 0.2"
    arguments += f" --data.short_side 48 --data.size 48 --augment.crop_scale null --model.attention {name}"
    arguments += " --train.epochs 3 --train.learning_rate 0.004 --train.warmup_epochs 0.5"
    arguments += " --train.label_smoothing 0 --eval.num_clips 1 --eval.every_epochs 3"
    assert main(["train", "--config", "folder", *TINY, *arguments.split()]) == 0
    with open(run / "metrics.csv", newline="") as file:
        losses = [float(row["train_loss"]) for row in csv.DictReader(file)]
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0] - 0.02
