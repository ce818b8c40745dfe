"""The benchmarks run, at their smallest sizes; what they measure is not looked at."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.run import NAMES

BENCHMARKS = Path(__file__).parents[1] / "benchmarks"
SMALLEST = {
    "block": "--mechanisms gct --repeats 1",
    "floors": "--mechanisms gct --repeats 1",
    "train_step": "--batch-size 1 --frames 4 --size 32 --repeats 1",
    "frames": "--batch-size 1 --frames 2 --size 32 --repeats 1",
    "cifar": "--images 300",
    "decode": "{video} --repeats 1",
    "index": "{video} --repeats 1",
    "storage": "{folder}",
    "loader": None,  # pytorchvideo's loader and torchcodec's are what it compares with
    "start": "--rows 1000",
    "ucf101": "--videos 3 --batch-size 2",
    "insertion": "torchvision/r3d_18 --count-only",
}


def test_all_are_listed():
    assert list(SMALLEST) == NAMES


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name, arguments in SMALLEST.items() if arguments])
def test_it_runs(name, make_video, tmp_path):
    folder = tmp_path / "videos"
    for label in ("a", "b"):
        video = make_video(folder / label / "clip.mp4", count=80)
    arguments = SMALLEST[name].format(video=video, folder=folder).split()
    done = subprocess.run([sys.executable, f"{name}.py", *arguments], cwd=BENCHMARKS, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "|---" in done.stdout
