"""Predictions as files: one row per item, one row per class, and the confusion matrix; of items with several labels,
one row per item and one per class."""

import csv
from pathlib import Path
from typing import NamedTuple

import numpy as np
from torch import Tensor

from cbam3d.engine.records import write_csv
from cbam3d.engine.scores import Predictions, class_accuracies
from cbam3d.engine.several import Ranking, f1_scores


def write_predictions(path: Path, given: Predictions, groups: list[str], classes: list[str]) -> None:
    """`predictions.csv`: path, group, label, whether it was right, and the five most probable classes."""
    top = min(5, len(classes))
    header = ["path", "group", "label", "right"]
    header += [name for k in range(1, top + 1) for name in (f"top{k}", f"probability{k}")]
    best = np.argsort(-given.probabilities, axis=1, kind="stable")[:, :top]
    rows = []
    for name, group, label, order, row in zip(
        given.names, groups, given.labels, best, given.probabilities, strict=True
    ):
        pairs = [value for k in order for value in (classes[k], f"{row[k]:.6f}")]
        rows.append([name, group, classes[label], int(order[0] == label), *pairs])
    write_csv(path, [header, *rows])


def write_labels(path: Path, given: Predictions, groups: list[str], classes: list[str], thresholds: np.ndarray) -> None:
    """`predictions.csv` where items may have several labels: path, group, labels, those predicted, whether they are the
    same, and the probability of every class, under `p(class)`."""
    predicted = given.probabilities >= thresholds
    rows = []
    for name, group, own, found, row in zip(
        given.names, groups, given.labels, predicted, given.probabilities, strict=True
    ):
        texts = ("|".join(classes[k] for k in np.flatnonzero(each)) for each in (own, found))
        rows.append([name, group, *texts, int((own == found).all()), *(f"{value:.9g}" for value in row)])
    header = ["path", "group", "labels", "predicted", "right", *(f"p({name})" for name in classes)]
    write_csv(path, [header, *rows])


class Scored(NamedTuple):
    """What a `predictions.csv` says of N items.

    Args:
        names: of the items.
        groups: of the items.
        found: whether each was right, bool (N,); of items with several labels the probabilities of the classes, (N, K).
        labels: of items with several labels, bool (N, K); else None.
    """

    names: list[str]
    groups: list[str]
    found: np.ndarray
    labels: np.ndarray | None


def read_predictions(path: Path) -> Scored:
    """Read a `predictions.csv`, of items with one label or several."""
    with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
        rows = list(csv.DictReader(file))
    names, groups = [row["path"] for row in rows], [row["group"] for row in rows]
    if "labels" not in rows[0]:
        return Scored(names, groups, np.array([row["right"] == "1" for row in rows]), None)
    classes = [name[2:-1] for name in rows[0] if name.startswith("p(")]
    labels = np.array([[name in row["labels"].split("|") for name in classes] for row in rows])
    probabilities = np.array([[float(row[f"p({name})"]) for name in classes] for row in rows])
    return Scored(names, groups, probabilities, labels)


def write_class_scores(
    path: Path, given: Predictions, classes: list[str], thresholds: np.ndarray, intervals: np.ndarray
) -> None:
    """`classes.csv` where items may have several labels: for each class the number of items that have it, its average
    precision with its 95 % interval (K, 2), the threshold, and precision, recall and F1 there."""
    precisions = Ranking(given.probabilities, given.labels).average_precisions()
    predicted = given.probabilities >= thresholds
    right, chosen, own = (each.sum(0) for each in (predicted & given.labels, predicted, given.labels))
    scores = (precisions, right / np.maximum(chosen, 1), right / np.maximum(own, 1), f1_scores(predicted, given.labels))
    rows = []
    for number, name in enumerate(classes):
        values = ("" if not own[number] else f"{score[number]:.4f}" for score in scores)
        average, *others = values
        between = ["" if np.isnan(bound) else f"{bound:.4f}" for bound in intervals[number]]
        rows.append([name, int(own[number]), average, *between, f"{thresholds[number]:.4f}", *others])
    header = ["class", "items", "average_precision", "low", "high", "threshold", "precision", "recall", "f1"]
    write_csv(path, [header, *rows])


def write_classes(path: Path, given: Predictions, classes: list[str]) -> None:
    """`classes.csv`: for each class the number of items, the accuracy, and the most frequent wrong prediction."""
    accuracies = class_accuracies(given.hits(), given.labels, len(classes))
    predicted = given.probabilities.argmax(1) if len(given.labels) else given.labels
    rows = []
    for number, name in enumerate(classes):
        own = predicted[given.labels == number]
        wrong = np.bincount(own[own != number], minlength=len(classes))
        mostly = [classes[wrong.argmax()], int(wrong.max())] if wrong.any() else ["", 0]
        rows.append([name, len(own), "" if np.isnan(accuracies[number]) else f"{accuracies[number]:.4f}", *mostly])
    write_csv(path, [["class", "items", "accuracy", "mostly_taken_for", "times"], *rows])


def write_confusion(path: Path, confusion: Tensor, classes: list[str]) -> None:
    """`confusion.csv`: true classes down, predicted ones across."""
    rows = ([name, *counts] for name, counts in zip(classes, confusion.tolist(), strict=True))
    write_csv(path, [["true \\ predicted", *classes], *rows])
