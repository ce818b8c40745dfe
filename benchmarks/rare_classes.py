"""What helps classes of few videos: AVLetters, whose classes are thinned to 2 … 20 training videos.

    python benchmarks/rare_classes.py FOLDER GROUPS [--seeds 5] [--out runs/rare] [--jobs 2]

The classes keep numbers of videos from 2 to 20, at equal ratios, in an order that a seed decides; the held-out videos
stay as they are, ten of each class. When interrupted, the same command goes on.
"""

import argparse
import csv
from pathlib import Path

import numpy as np
from tables import table

from cbam3d import compare

VARIANTS = {
    "plain": {},
    "data.balance 0.5": {"data.balance": 0.5},
    "data.balance 1": {"data.balance": 1.0},
    "train.class_weights balanced": {"train.class_weights": "balanced"},
    "train.logit_adjustment 1": {"train.logit_adjustment": 1.0},
}
NETWORK = {
    "model.as_video": "frames",
    "model.attention": "tsm",
    "model.attention_options": {"share": 0.25, "position": ["maxpool", "residual"]},
    "data.sampling": "segments",
    "data.num_frames": 12,
    "data.stride": 1,
    "data.short_side": 60,
    "data.size": [60, 80],
    "data.num_workers": 0,
    "augment.crop_scale": [0.7, 1.0],
    "augment.flip": False,
    "eval.num_clips": 1,
    "eval.num_crops": 1,
    "eval.every_epochs": 40,
    "train.epochs": 40,
}


def thin(groups: Path, target: Path) -> list[int]:
    """Write the groups file with most training videos unused; returns the numbers that the classes keep."""
    with open(groups, newline="") as file:
        rows = list(csv.DictReader(file))
    labels = sorted({row["label"] for row in rows})
    numbers = np.round(np.geomspace(2, 20, len(labels))).astype(int)
    rng = np.random.default_rng(0)
    kept = dict(zip(rng.permutation(labels).tolist(), numbers.tolist(), strict=True))
    for label in labels:
        own = [row for row in rows if row["label"] == label and row["split"] == "train"]
        for place in rng.permutation(len(own))[kept[label] :]:
            own[place]["split"] = "unused"
    with open(target, "w", newline="") as file:
        writer = csv.DictWriter(file, ["path", "label", "group", "split"])
        writer.writeheader()
        writer.writerows(rows)
    return numbers.tolist()


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("groups", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("runs/rare"))
    parser.add_argument("--jobs", type=int, default=2)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    numbers = thin(given.groups, given.out / "groups.csv")
    data = {"data.root": str(given.folder), "data.groups": str(given.out / "groups.csv")}
    recipe = {"config": "folder", **NETWORK, **data}
    compared = compare(recipe, variants=VARIANTS, seeds=given.seeds, out=given.out, jobs=given.jobs)
    print(f"{sum(numbers)} training videos, {min(numbers)} to {max(numbers)} of a class; {given.seeds} seeds.\n")
    rows = []
    for row in compared.rows:
        found = accuracies(given.out / row.name.replace(" ", "-"), given.seeds)
        rare = [by_class[np.array(numbers) <= 4].mean() for by_class in found]
        mean = f"{100 * row.mean:.1f} ± {100 * row.deviation:.1f}"
        gain = f"{100 * row.difference:+.1f} ({100 * row.low:+.1f} … {100 * row.high:+.1f})"
        rows.append([row.name, mean, gain if row is not compared.rows[0] else "", f"{100 * np.mean(rare):.1f}"])
    table(["", "accuracy (10 videos a class)", "against plain", "of classes of 2 to 4 videos"], rows)


def accuracies(folder: Path, seeds: int) -> list[np.ndarray]:
    """Of each seed, the accuracy of each class, those of few training videos first."""
    found = []
    with open(folder.parent / "groups.csv", newline="") as file:
        rows = [row["label"] for row in csv.DictReader(file) if row["split"] == "train"]
    for seed in range(seeds):
        with open(folder / f"seed{seed}" / "classes.csv", newline="") as file:
            by_class = {row["class"]: float(row["accuracy"]) for row in csv.DictReader(file)}
        found.append(np.array([by_class[label] for label in sorted(by_class, key=rows.count)]))
    return found


if __name__ == "__main__":
    main()
