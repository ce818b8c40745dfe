"""Images a second in training of the CIFAR configurations, on made-up images, as `cbam3d train` says it.

    python benchmarks/cifar.py [--images 8000] [--key value …]

Further arguments go to `cbam3d train`: --run.accelerator cuda, --run.precision 32-true.
"""

import argparse
import csv
import statistics
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from tables import table

from cbam3d.cli import main as cbam3d
from cbam3d.config import load_config

CONFIGS = ["cifar10_cbam_cnn", "cifar10_fast", "cifar10_resnet18"]


def make_images(root: Path, count: int) -> None:
    """Noise in ten classes: `count` to train, and 200 to test."""
    rng = np.random.default_rng(0)
    for split, each in (("train", count // 10), ("test", 20)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(each):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second")
    parser.add_argument("--images", type=int, default=8_000, help="of an epoch; the median of three is taken")
    given, others = parser.parse_known_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_images(root / "images", given.images)
        for name in CONFIGS:
            data = ["--data.recipe", "image_folder", "--data.root", str(root / "images")]
            limits = ["--train.epochs", "4", "--train.warmup_epochs", "1", "--eval.every_epochs", "4"]
            with redirect_stdout(StringIO()):
                status = cbam3d(["train", "--config", name, *data, *limits, "--run.dir", str(root / name), *others])
            if status:
                raise SystemExit(status)
            with open(root / name / "metrics.csv", newline="") as file:
                speed = statistics.median(float(row["clips_per_second"]) for row in list(csv.DictReader(file))[1:])
            batch = load_config(name).train.batch_size
            rows.append([name, str(batch), f"{speed:,.0f}", f"{50_000 / speed:,.0f}"])
    table(["configuration", "batch", "images a second", "seconds for 50,000"], rows)


if __name__ == "__main__":
    main()
