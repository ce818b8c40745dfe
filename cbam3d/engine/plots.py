"""Plots of a run: curves, steps, the confusion matrix; and of runs side by side."""

import csv
import logging
from collections.abc import Callable
from functools import wraps
from itertools import cycle
from pathlib import Path
from typing import Concatenate, ParamSpec

import numpy as np
from matplotlib import rc_context
from matplotlib.figure import Figure
from torch import Tensor

from cbam3d.engine.records import EpochTable

# lines that lie on each other stay apart: the later ones are thinner, and let the earlier ones through
_STYLES = [
    {"marker": marker, "linestyle": line, "linewidth": width, "markersize": 3.5}
    for marker, line, width in (("o", "-", 2.2), ("s", "--", 1.8), ("^", "-.", 1.4), ("D", ":", 1.2))
]
P = ParamSpec("P")
logger = logging.getLogger(__name__)


def _picture(draw: Callable[P, Figure]) -> Callable[Concatenate[Path, P], None]:
    """Save the figure that a function draws to a path, its new first argument. Names are drawn literally, without
    mathtext; a plot that fails is a warning, as the numbers are in the tables."""

    @wraps(draw)
    def save(path: Path, *args: P.args, **options: P.kwargs) -> None:
        try:
            with rc_context({"text.parse_math": False}):
                draw(*args, **options).savefig(path, dpi=160)
        except Exception as error:
            logger.warning("%s: cannot be drawn (%s: %s)", path, type(error).__name__, error)

    return save


def _drawable(names: list[str]) -> list[str]:
    """Names of files may hold bytes that are not text."""
    return [name.encode(errors="replace").decode() for name in names]


@_picture
def plot_curves(table: EpochTable, score_names: list[str], chance: float | None = None) -> Figure:
    """Loss and scores over the epochs; chance, 0 … 1, is a line."""
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    losses, scores = figure.subplots(1, 2)
    for (name, label), style in zip((("train_loss", "training"), ("loss", "held out")), _STYLES, strict=False):
        epochs, values = table.column(name)
        losses.plot(epochs, values, **style, markevery=max(1, len(epochs) // 25), label=label)
    for name, style in zip(score_names, cycle(_STYLES)):
        epochs, values = table.column(name)
        percent = [100 * value for value in values]
        scores.plot(epochs, percent, **style, markevery=max(1, len(epochs) // 25), label=name)
    if chance is not None:
        scores.axhline(100 * chance, color="black", linestyle=":", linewidth=1, label="chance")
    losses.set(xlabel="epoch", title="loss")
    scores.set(xlabel="epoch", ylabel="%", ylim=(0, 101), title="held-out scores")
    for axes in (losses, scores):
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
    return figure


@_picture
def plot_steps(table: Path) -> Figure:
    """The loss of each row of `steps.csv`, and its mean over a hundredth of the training."""
    with open(table, newline="") as file:
        rows = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file)]
    steps, losses = np.array(rows, float).reshape(-1, 2).T
    width = max(1, len(losses) // 100)
    finite = np.isfinite(losses)
    steps, losses = steps[finite], losses[finite]
    figure = Figure(figsize=(7, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.plot(steps, losses, linewidth=0.5, alpha=0.4, label="each step noted")
    if 1 < width <= len(losses):
        means = np.convolve(losses, np.ones(width) / width, mode="valid")
        axes.plot(steps[width - 1 :], means, label=f"mean of the last {width}")
    axes.set(xlabel="step", title="training loss")
    axes.grid(alpha=0.3)
    axes.legend()
    return figure


@_picture
def plot_confusion(confusion: Tensor, classes: list[str]) -> Figure:
    """Rows are true classes, columns predictions; the colour is the share of the row."""
    counts = confusion.numpy()
    shares = counts / np.maximum(1, counts.sum(axis=1, keepdims=True))
    side = min(24.0, 3.0 + 0.35 * len(classes))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, vmin=0, vmax=1, cmap="Blues")
    names = _drawable(classes)
    axes.set_xticks(range(len(names)), names, rotation=90)
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted", ylabel="true")
    if len(classes) <= 20:
        for i, j in np.ndindex(*counts.shape):
            if counts[i, j]:
                colour = "white" if shares[i, j] > 0.5 else "black"
                axes.text(j, i, str(counts[i, j]), ha="center", va="center", color=colour, fontsize=8)
    figure.colorbar(image, shrink=0.7, label="share of the true class")
    return figure


@_picture
def plot_comparison(
    names: list[str], scores: list[list[float]], differences: list[tuple[float, float, float]], score: str
) -> Figure:
    """Scores of several ways to train, one point per seed; and their differences from the first, with intervals.

    Args:
        names: of the ways.
        scores: of each, 0 … 1, one a seed.
        differences: value, low and high of each, 0 … 1; the first's is not shown.
        score: name of the score.
    """
    names = _drawable(names)
    figure = Figure(figsize=(8, 1.6 + 0.35 * len(names)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True)
    for y, values in enumerate(scores):
        left.plot([100 * value for value in values], [y] * len(values), "o", color="tab:blue", alpha=0.5)
        left.plot([100 * float(np.mean(values))], [y], "|", color="black", markersize=18, markeredgewidth=2)
    for y, (value, low, high) in list(enumerate(differences))[1:]:
        nothing = low <= 0 <= high or len(scores[y]) == 1  # of one seed
        colour = "tab:gray" if nothing else "tab:green" if value > 0 else "tab:red"
        right.plot([100 * low, 100 * high], [y, y], color=colour, linewidth=2)
        right.plot([100 * value], [y], "o", color=colour)
    right.axvline(0, color="black", linewidth=0.8)
    left.set_yticks(range(len(names)), names)
    left.invert_yaxis()
    left.set(xlabel=f"{score}, %", title="each seed, and their mean")
    right.set(xlabel="points, with 95 % intervals", title=f"against {names[0]} (grey: within noise)")
    for axes in (left, right):
        axes.grid(axis="x", alpha=0.3)
    return figure
