"""Images a second in training of the CIFAR configurations, on made-up images, as `cbam3d train` says it.

    python benchmarks/cifar.py [--batches 20] [--key value …]

Further arguments go to `cbam3d train`: --run.accelerator cuda, --run.precision 32-true.
"""

import argparse
import csv
import tempfile
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

import numpy as np
from PIL import Image
from tables import table

from cbam3d.cli import main as cbam3d

CONFIGS = ["cifar10_cbam_cnn", "cifar10_fast", "cifar10_resnet18"]


def make_images(root: Path) -> None:
    """Noise in ten classes, 4,000 to train and 200 to test."""
    rng = np.random.default_rng(0)
    for split, count in (("train", 400), ("test", 20)):
        for label in range(10):
            folder = root / split / f"class{label}"
            folder.mkdir(parents=True)
            for i in range(count):
                Image.fromarray(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(folder / f"{i}.png")


def main() -> None:
    parser = argparse.ArgumentParser(description="Images a second")
    parser.add_argument("--batches", type=int, default=20, help="of an epoch; the second of two is measured")
    given, others = parser.parse_known_args()
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        make_images(root / "images")
        for name in CONFIGS:
            data = ["--data.recipe", "image_folder", "--data.root", str(root / "images")]
            limits = ["--train.epochs", "2", "--train.warmup_epochs", "1", "--train.limit_batches", str(given.batches)]
            limits += ["--eval.every_epochs", "2"]
            with redirect_stdout(StringIO()):
                status = cbam3d(["train", "--config", name, *data, *limits, "--run.dir", str(root / name), *others])
            if status:
                raise SystemExit(status)
            with open(root / name / "metrics.csv", newline="") as file:
                speed = float(list(csv.DictReader(file))[-1]["clips_per_second"])
            config = (root / name / "config.yaml").read_text()
            batch = next(line.split(":")[1].strip() for line in config.splitlines() if "  batch_size:" in line)
            rows.append([name, batch, f"{speed:,.0f}", f"{50_000 / speed:,.0f}"])
    table(["configuration", "batch", "images a second", "seconds for 50,000"], rows)


if __name__ == "__main__":
    main()
