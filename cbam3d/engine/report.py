"""What a run leaves behind for people: tables, curves, the confusion matrix, the list of what was skipped."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from torch import Tensor

from cbam3d.errors import InputError


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON; the file appears under its name only when it is complete."""
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text(json.dumps(content, indent=2) + "\n")
    unfinished.replace(path)


class EpochTable:
    """`metrics.csv`: a row an epoch. Columns that a row lacks stay empty.

    Args:
        path: the file.
        last_epoch: rows after this epoch are dropped, as a resumed run writes them again.
    """

    def __init__(self, path: Path, last_epoch: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and last_epoch > 0:
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= last_epoch]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        unfinished = self.path.with_name(self.path.name + ".part")
        with open(unfinished, "w", newline="") as file:
            writer = csv.DictWriter(file, names)
            writer.writeheader()
            writer.writerows(self.rows)
        unfinished.replace(self.path)

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a column, where it has any."""
        filled = [row for row in self.rows if row.get(name) not in (None, "")]
        return [int(row["epoch"]) for row in filled], [float(row[name]) for row in filled]


class StepTable:
    """`steps.csv`: a row every few steps, appended while training goes on.

    Args:
        path: the file.
        last_step: rows after this step are dropped, as a resumed run writes them again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        rows: list[dict[str, Any]] = []
        if path.exists() and last_step > 0:
            with open(path, newline="") as file:
                whole = [row for row in csv.DictReader(file) if all(row.values())]  # the last may be cut off
            rows = [row for row in whole if int(row["step"]) <= last_step]
        columns = ["step", "loss", "learning_rate"]
        unfinished = path.with_name(path.name + ".part")
        with open(unfinished, "w", newline="") as file:
            kept = csv.DictWriter(file, columns)
            kept.writeheader()
            kept.writerows(rows)
        unfinished.replace(path)
        self.file = open(path, "a", newline="")  # noqa: SIM115  # closed at the end of training
        self.writer = csv.DictWriter(self.file, columns)

    def add(self, row: dict[str, Any]) -> None:
        self.writer.writerow(row)
        self.file.flush()

    def __enter__(self) -> "StepTable":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class SkippedFiles:
    """`skipped.csv`: path and reason of every file that could not be used, each once.

    Args:
        path: the file.
        limit: how many files there may be.
        writes: whether this process writes the file; the others count only.

    Raises:
        InputError: from `add`, when there are more than `limit`.
    """

    def __init__(self, path: Path, limit: int, writes: bool = True) -> None:
        self.path, self.limit, self.writes = path, limit, writes
        self.reasons: dict[str, str] = {}
        if path.exists():  # of the run that is being continued
            with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
                self.reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}

    def add(self, problems: list[tuple[str, str]]) -> list[str]:
        """Note problems; return a line for each file that is new."""
        new = {name: reason for name, reason in problems if name not in self.reasons}
        if new:
            self.reasons |= new
        if new and self.writes:
            with open(self.path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
                csv.writer(file).writerows([("path", "reason"), *self.reasons.items()])
        if len(self.reasons) > self.limit:
            name, reason = next(iter(self.reasons.items()))
            raise InputError(
                f"{len(self.reasons)} files cannot be used, data.max_bad_videos is {self.limit}; "
                f"all are in {self.path}, the first is {name}: {reason}"
            )
        return [f"{name}: {reason}" for name, reason in new.items()]


def plot_curves(table: EpochTable, path: Path, score_names: list[str]) -> None:
    """Loss and scores over the epochs."""
    figure = Figure(figsize=(10, 4), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for name, label in (("train_loss", "training"), ("loss", "held out")):
        losses.plot(*table.column(name), marker=".", label=label)
    for name in score_names:
        epochs, values = table.column(name)
        scores.plot(epochs, [100 * value for value in values], marker=".", label=name)
    losses.set(xlabel="epoch", ylabel="cross-entropy", title="loss")
    scores.set(xlabel="epoch", ylabel="%", ylim=(0, 101), title="held-out scores")
    for axes in (losses, scores):
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=110)


def plot_steps(table: Path, path: Path) -> None:
    """The loss of each row of `steps.csv`, and its mean over a hundredth of the training."""
    with open(table, newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    steps, losses = np.array(rows, float).reshape(-1, 2).T
    width = max(1, len(losses) // 100)
    finite = np.isfinite(losses)
    steps, losses = steps[finite], losses[finite]
    figure = Figure(figsize=(10, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, linewidth=0.5, alpha=0.4, label="each step noted")
    if 1 < width <= len(losses):
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], means, label=f"mean of the last {width}")
    axes.set(xlabel="step", ylabel="cross-entropy", title="training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=110)


def plot_confusion(confusion: Tensor, classes: list[str], path: Path) -> None:
    """Rows are true classes, columns predictions; the colour is the share of the row."""
    counts = confusion.numpy()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(24.0, 3.0 + 0.35 * len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(classes)), classes, rotation=90)
    axes.set_yticks(range(len(classes)), classes)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 20:
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, shrink=0.7, label="share of the true class")
    figure.savefig(path, dpi=110)
