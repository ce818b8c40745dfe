"""What evaluations found: scores with their uncertainty, the files that hold them, and several side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cbam3d.engine.plots import plot_confusion
from cbam3d.engine.records import write_json
from cbam3d.engine.scores import (
    PairedComparison,
    accuracy_interval,
    calibration_error,
    class_accuracies,
    class_interval,
    compare_paired,
)
from cbam3d.engine.scoring import Evaluation
from cbam3d.engine.several import chance_precisions, compare_map, f1_scores, map_intervals
from cbam3d.engine.tables import (
    write_class_scores,
    write_classes,
    write_confusion,
    write_labels,
    write_predictions,
)
from cbam3d.errors import InputError
from cbam3d.runs.data import Source


@dataclass(frozen=True)
class Result:
    """An evaluation with what is known of its uncertainty.

    Args:
        evaluation: scores, counts and predictions.
        classes: names in the order of their numbers.
        groups: of each item: the group of a video, else the item itself.
        scores: all of them by name; all but the loss are 0 … 1.
        intervals: 95 % intervals of those that are means over items or classes, by bootstrap over groups.
        num_skipped: files of the data set that could not be used.
        thresholds: probabilities from which on a class is taken to hold, (K,), where items may have several; else None.
        class_intervals: of the average precision of each class, (K, 2), there; else None.

    Examples:
        >>> import cbam3d
        >>> result = cbam3d.open_run("runs/mine").evaluate()
        >>> low, high = result.intervals["video_top1"]
        >>> low <= result.scores["video_top1"] <= high
        True
    """

    evaluation: Evaluation
    classes: list[str]
    groups: list[str]
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    num_skipped: int
    thresholds: np.ndarray | None = None
    class_intervals: np.ndarray | None = None

    @classmethod
    def of(
        cls, evaluation: Evaluation, source: Source, num_skipped: int, thresholds: np.ndarray | None = None
    ) -> "Result":
        """Add class accuracies, calibration and intervals to an evaluation.

        Args:
            evaluation: of the items.
            source: where they are from.
            num_skipped: files that could not be used.
            thresholds: where items may have several labels; None for 0.5.
        """
        given, classes = evaluation.predictions, source.classes
        groups = groups_of(source, given.names)
        if given.several:
            thresholds = np.full(len(classes), 0.5) if thresholds is None else thresholds
            f1 = float(np.nanmean(f1_scores(given.probabilities >= thresholds, given.labels)))
            of_all, of_classes = map_intervals(given.probabilities, given.labels, np.array(groups))
            scores = evaluation.scores | {"video_f1": f1}
            return cls(evaluation, classes, groups, scores, {"video_map": of_all}, num_skipped, thresholds, of_classes)
        top1 = next(name for name in ("video_top1", "top1") if name in evaluation.scores)
        by_class = class_accuracies(given.hits(), given.labels, len(classes))
        of_classes = top1.replace("top1", "mean_class_accuracy")
        scores = evaluation.scores | {
            of_classes: float(np.nanmean(by_class)),
            top1.replace("top1", "calibration_error"): calibration_error(given.probabilities, given.labels),
        }
        units = np.array(groups)
        top = [k for k in (1, 5) if top1.replace("1", str(k)) in evaluation.scores]
        intervals = {top1.replace("1", str(k)): accuracy_interval(given.hits(k), units) for k in top}
        intervals[of_classes] = class_interval(given.hits(), given.labels, units, len(classes))
        return cls(evaluation, classes, groups, scores, intervals, num_skipped)

    def __repr__(self) -> str:
        low, high = self.bounded.get(self.leading, (float("nan"), float("nan")))
        score = f"{self.leading} {self.scores[self.leading]:.2%} ({low:.2%} … {high:.2%}), chance {self.chance:.2%}"
        return f"Result({score}, {', '.join(f'{name} {value:,}' for name, value in self.counts.items())})"

    @property
    def uneven(self) -> str:
        """Of which classes there are so many more items than of others that they decide the accuracy; empty where the
        largest has less than twice the items of the smallest."""
        labels = self.evaluation.predictions.labels
        if labels.ndim == 2:  # the mean over classes counts them alike
            return ""
        counts = np.bincount(labels, minlength=len(self.classes))
        few, many = counts[counts > 0].min(), counts.max()
        if many < 2 * few:
            return ""
        rare, frequent = (self.classes[int(np.flatnonzero(counts == count)[0])] for count in (few, many))
        return f"{few} of {rare}, {many} of {frequent}"

    @property
    def leading(self) -> str:
        """The score to look at first: accuracy, or where classes are uneven, the mean accuracy of the classes."""
        top1 = next(iter(self.intervals))
        return top1.replace("top1", "mean_class_accuracy") if self.uneven else top1

    @property
    def images(self) -> bool:
        """Whether items are images, rather than videos."""
        return "num_images" in self.evaluation.counts

    @property
    def chance(self) -> float:
        """The leading score of an answer that ignores the item: always the most frequent class; of classes that are
        counted alike, any of those that there are; of several labels, items in random order."""
        labels = self.evaluation.predictions.labels
        if labels.ndim == 2:
            return float(np.nanmean(chance_precisions(labels)))
        counts = np.bincount(labels)
        return float(1 / (counts > 0).sum() if self.uneven else counts.max() / counts.sum())

    @property
    def bounded(self) -> dict[str, tuple[float, float]]:
        """The finite intervals: none where there are too few groups."""
        return {name: between for name, between in self.intervals.items() if np.isfinite(between).all()}

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of what was scored and skipped."""
        return self.evaluation.counts | {"num_skipped": self.num_skipped}

    def facts(self) -> dict[str, Any]:
        """Scores, intervals and counts, for JSON."""
        counts = self.counts | {"num_groups": len(set(self.groups)), "num_classes": len(self.classes)}
        leading = {"leading_score": self.leading, "chance": self.chance, "uneven_classes": self.uneven}
        facts = {**self.scores, "intervals_95": self.bounded, **counts, **leading}
        if self.thresholds is not None:
            facts["thresholds"] = dict(zip(self.classes, self.thresholds.tolist(), strict=True))
        return facts

    def write(self, folder: Path, json_file: Path, facts: dict[str, Any]) -> None:
        """Write `predictions.csv`, `classes.csv` and, of items with one label, `confusion.csv` into a folder, the facts
        as JSON, and last, when nothing more can be lost, `confusion.png`."""
        given, confusion = self.evaluation.predictions, self.evaluation.confusion
        if self.thresholds is not None and self.class_intervals is not None:
            write_labels(folder / "predictions.csv", given, self.groups, self.classes, self.thresholds)
            write_class_scores(folder / "classes.csv", given, self.classes, self.thresholds, self.class_intervals)
            write_json(json_file, facts)
            return
        assert confusion is not None
        write_predictions(folder / "predictions.csv", given, self.groups, self.classes)
        write_classes(folder / "classes.csv", given, self.classes)
        write_confusion(folder / "confusion.csv", confusion, self.classes)
        write_json(json_file, facts)
        plot_confusion(folder / "confusion.png", confusion, self.classes)


def groups_of(source: Source, names: list[str]) -> list[str]:
    """The group of each item, or its name where it has none."""
    if source.manifest is None:
        return names
    group = dict(zip(source.manifest.names(), source.manifest.group, strict=True))
    return [group[name] or name for name in names]


def compare_runs(first: Result, other: Result) -> PairedComparison:
    """Compare two evaluations of the same items; the difference is that of the second from the first.

    Args:
        first: of `Run.evaluate`.
        other: likewise.

    Raises:
        InputError: they were scored on different items.

    Examples:
        >>> import cbam3d
        >>> run = cbam3d.open_run("runs/mine")
        >>> one, more = run.evaluate(), run.evaluate({"eval.num_clips": 2})
        >>> found = cbam3d.compare_runs(one, more)
        >>> found.low <= found.difference <= found.high
        True
    """
    a, b = (result.evaluation.predictions for result in (first, other))
    if a.names != b.names or not np.array_equal(a.labels, b.labels):
        raise InputError("the runs were scored on other items: no paired comparison")
    if a.several:
        found = compare_map([a.probabilities], [b.probabilities], a.labels, np.array(first.groups))
        return PairedComparison(*found)
    return compare_paired(a.hits(), b.hits(), np.array(first.groups))


@dataclass(frozen=True)
class SplitMean:
    """The accuracy, or mean average precision, on several splits of one data set."""

    score: str  # its name
    values: dict[int, float]  # by split

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))


def mean_over_splits(results: Sequence[tuple[int, Result]]) -> SplitMean:
    """The mean of the accuracy, or mean average precision, over splits, given their numbers and evaluations."""
    score = next(iter(results[0][1].intervals))
    return SplitMean(score, {split: result.scores[score] for split, result in results})
