"""What several runs say together: paired comparisons on the same items, or the mean over splits."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cbam3d.engine.scores import PairedComparison, compare_paired
from cbam3d.errors import InputError
from cbam3d.runs.results import Result


def compare_runs(first: Result, other: Result) -> PairedComparison:
    """Compare two evaluations of the same items; the difference is that of the second from the first.

    Args:
        first: of `Run.evaluate`.
        other: likewise.

    Raises:
        InputError: they were scored on different items.
    """
    a, b = (result.evaluation.predictions for result in (first, other))
    if a.names != b.names or (a.labels != b.labels).any():
        raise InputError("the runs were scored on other items: no paired comparison")
    return compare_paired(a.hits(), b.hits(), np.array(first.groups))


@dataclass(frozen=True)
class SplitMean:
    """Top-1 accuracy on several splits of one data set."""

    score: str  # its name
    values: dict[int, float]  # by split

    @property
    def mean(self) -> float:
        return float(np.mean(list(self.values.values())))


def mean_over_splits(results: Sequence[tuple[int, Result]]) -> SplitMean:
    """The mean accuracy over splits, given their numbers and evaluations."""
    score = next(iter(results[0][1].intervals))
    return SplitMean(score, {split: result.scores[score] for split, result in results})
