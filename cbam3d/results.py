"""What a scoring found: scores with their uncertainty, as a table for people and as files in a folder."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cbam3d.engine.evaluate import Evaluation
from cbam3d.engine.plots import plot_confusion
from cbam3d.engine.records import write_json
from cbam3d.engine.scores import LEAST_UNITS, calibration_error, class_accuracies, interval
from cbam3d.engine.tables import write_classes, write_confusion, write_predictions
from cbam3d.errors import counted
from cbam3d.sources import Source


@dataclass(frozen=True)
class Result:
    """An evaluation, what its items belong together by (the group of a video, else the item itself), all scores by
    name, and the 95 % intervals of those that are means over items."""

    evaluation: Evaluation
    classes: list[str]
    groups: list[str]
    scores: dict[str, float]
    intervals: dict[str, tuple[float, float]]

    @classmethod
    def of(cls, evaluation: Evaluation, source: Source) -> "Result":
        """Add to an evaluation what its predictions tell."""
        given, classes = evaluation.predictions, source.classes
        groups = groups_of(source, given.names)
        top1 = next(name for name in ("video_top1", "top1") if name in evaluation.scores)
        by_class = class_accuracies(given.hits(), given.labels, len(classes))
        scores = evaluation.scores | {
            top1.replace("top1", "mean_class_accuracy"): float(np.nanmean(by_class)),
            top1.replace("top1", "calibration_error"): calibration_error(given.probabilities, given.labels),
        }
        units = np.array(groups)
        intervals = {top1.replace("1", str(k)): interval(given.hits(k), units) for k in (1, 5)}
        return cls(evaluation, classes, groups, scores, intervals)

    @property
    def bounded(self) -> dict[str, tuple[float, float]]:
        """The intervals that tell something: none of them where there are too few groups."""
        return {name: between for name, between in self.intervals.items() if np.isfinite(between).all()}

    def facts(self) -> dict[str, Any]:
        """Scores, intervals and counts, for JSON."""
        counts = self.evaluation.counts | {"num_groups": len(set(self.groups)), "num_classes": len(self.classes)}
        return {**self.scores, "intervals_95": self.bounded, **counts}

    def write(self, folder: Path, json_file: Path, facts: dict[str, Any]) -> None:
        """Write `predictions.csv`, `classes.csv` and `confusion.csv` into a folder, the facts as JSON, and last, when
        nothing more can be lost, `confusion.png`."""
        given, confusion = self.evaluation.predictions, self.evaluation.confusion
        write_predictions(folder / "predictions.csv", given, self.groups, self.classes)
        write_classes(folder / "classes.csv", given, self.classes)
        write_confusion(folder / "confusion.csv", confusion, self.classes)
        write_json(json_file, facts)
        plot_confusion(folder / "confusion.png", confusion, self.classes)

    def table(self, title: str, num_skipped: int) -> Table:
        """For the console.

        Args:
            title: what was scored.
            num_skipped: files of the data set that could not be used, as they are counted in the JSON file.
        """
        counts = self.evaluation.counts | {"num_skipped": num_skipped}
        told = ", ".join(f"{n:,} {name.removeprefix('num_')}" for name, n in counts.items())
        items, groups = len(self.groups), len(set(self.groups))
        drawn = f"{groups:,} groups" if groups < items else "items"
        caption = f"95 % intervals by bootstrap over {drawn}"
        if not self.bounded:
            units = counted(groups, "group") if groups < items else counted(items, "item")
            caption = (
                f"no intervals: {units}, and at least {LEAST_UNITS} are needed to tell how much others would differ"
            )
        table = Table(title=f"{title}: {told}", caption=caption, title_justify="left", caption_justify="left")
        table.add_column("score")
        table.add_column("value", justify="right")
        table.add_column("95 % interval", justify="right")
        for name, value in self.scores.items():
            low, high = self.bounded.get(name, (None, None))
            between = "" if low is None else f"{low:.2%} … {high:.2%}"
            table.add_row(name, f"{value:.4f}" if name == "loss" else f"{value:.2%}", between)
        return table


def groups_of(source: Source, names: list[str]) -> list[str]:
    """The group of each item, or its name where it has none."""
    if source.manifest is None:
        return names
    group = dict(zip(source.manifest.path, source.manifest.group, strict=True))
    return [group[name] or name for name in names]
