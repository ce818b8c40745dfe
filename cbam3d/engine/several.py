"""Scores of predictions where an item may have several labels, or none, and their uncertainty: pure functions of
probabilities and labels.

A class without a label among the items has no average precision, and is left out of means.
"""

import math
import warnings
from collections.abc import Iterator, Sequence

import numpy as np

from cbam3d.engine.scores import MIN_UNITS, REPEATS, bounds, expanded_bounds, score_bounds


class Ranking:
    """Items, ordered for each class by its probability.

    Args:
        probabilities: (N, K).
        labels: whether an item has a class, bool (N, K).
    """

    def __init__(self, probabilities: np.ndarray, labels: np.ndarray) -> None:
        self.order = np.argsort(-probabilities, axis=0, kind="stable")
        self.right = np.take_along_axis(labels, self.order, 0).astype(np.float64)
        ordered = np.take_along_axis(probabilities, self.order, 0)
        ends = np.full(ordered.shape, len(ordered) - 1)  # of items with the same probability, the last one's place
        ends[:-1][ordered[:-1] != ordered[1:]] = np.nonzero(ordered[:-1] != ordered[1:])[0]
        self.ends = np.minimum.accumulate(ends[::-1], 0)[::-1]

    def average_precisions(self, weights: np.ndarray | None = None) -> np.ndarray:
        """Of each class, (K,): the mean, over the items that have it, of the precision among all that are at least as
        probable; nan for a class that no item has.

        Args:
            weights: how often each item counts, (N,); None for once.
        """
        counts = np.ones(self.order.shape) if weights is None else weights[self.order]
        right = counts * self.right
        found, seen = np.cumsum(right, 0), np.cumsum(counts, 0)
        precision = np.divide(found, seen, out=np.zeros_like(found), where=seen > 0)
        total = (right * np.take_along_axis(precision, self.ends, 0)).sum(0)
        return np.divide(total, found[-1], out=np.full(total.shape, np.nan), where=found[-1] > 0)

    def mean(self, weights: np.ndarray | None = None) -> float:
        """Mean average precision over classes."""
        found = self.average_precisions(weights)
        return float(np.nanmean(found)) if np.isfinite(found).any() else math.nan


def map_intervals(
    probabilities: np.ndarray, labels: np.ndarray, units: np.ndarray
) -> tuple[tuple[float, float], np.ndarray]:
    """95 % intervals by bootstrap over units, as `scores.accuracy_interval`: of the mean average precision, and of the
    average precision of each class, (K, 2), nan where fewer than 5 units have it."""
    ranking = Ranking(probabilities, labels)
    found = [ranking.average_precisions(weights) for weights in _resamples(units, np.random.default_rng(0))]
    if not found:
        return (-math.inf, math.inf), np.full((labels.shape[1], 2), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a class that no item has
        estimates, num_units = ranking.average_precisions(), len(np.unique(units))
        low, high = score_bounds(np.nanmean(found, 1), float(np.nanmean(estimates)), num_units).tolist()
        having = np.array([len(np.unique(units[has])) for has in labels.T])
        of_classes = score_bounds(np.array(found), estimates, np.maximum(having, MIN_UNITS)).T
        return (low, high), np.where((having < MIN_UNITS)[:, None], np.nan, of_classes)


def compare_map(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], labels: np.ndarray, units: np.ndarray
) -> tuple[float, float, float]:
    """Difference in mean average precision, second minus first, and its 95 % interval.

    Args:
        first: probabilities (N, K) of one or several trainings.
        second: likewise.
        labels: bool (N, K).
        units: as in `scores.mean_interval`.

    One training on either side is compared on the items alone; of several, seeds are drawn as well, as in
    `scores.compare_trainings`.
    """
    sides = [[Ranking(probabilities, labels) for probabilities in side] for side in (first, second)]
    before, after = (float(np.mean([ranking.mean() for ranking in side])) for side in sides)
    rng, found = np.random.default_rng(0), []
    for weights in _resamples(units, rng):
        means = []
        for side in sides:
            drawn = rng.integers(0, len(side), max(1, len(side) - 1))
            of_seed = {number: side[number].mean(weights) for number in set(drawn.tolist())}
            means.append(np.mean([of_seed[number] for number in drawn.tolist()]))
        found.append(means[1] - means[0])
    if found and len(sides[0]) == len(sides[1]) == 1:
        low, high = expanded_bounds(np.array(found), after - before, len(np.unique(units))).tolist()
        return after - before, low, high
    return after - before, *bounds(found)


def chance_precisions(labels: np.ndarray) -> np.ndarray:
    """The expected average precision of each class, (K,), of items in random order; nan for a class that no item has.

    Args:
        labels: bool (N, K).

    Of the R items that have the class, the one at place i has (R - 1) / (N - 1) of the others that are before it:
    ((R - 1) / (N - 1) · (N - H) + H) / N, with H = 1 + 1/2 + … + 1/N.
    """
    n, right = len(labels), labels.sum(0)
    harmonic = float((1 / np.arange(1, n + 1)).sum())
    others = (right - 1) / max(1, n - 1)
    return np.where(right > 0, (others * (n - harmonic) + harmonic) / n, np.nan)


def best_thresholds(probabilities: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The probability of each class, (K,), from which on it is taken to hold, for the highest F1 of these items; 0.5
    where none has it."""
    ranking = Ranking(probabilities, labels)
    ordered = np.take_along_axis(probabilities, ranking.order, 0)
    found = np.take_along_axis(np.cumsum(ranking.right, 0), ranking.ends, 0)
    f1 = 2 * found / (ranking.ends + 1 + ranking.right.sum(0))
    places = f1.argmax(0)
    above = np.take_along_axis(ordered, places[None], 0)[0]
    after = np.minimum(np.take_along_axis(ranking.ends, places[None], 0)[0] + 1, len(ordered) - 1)
    below = np.take_along_axis(ordered, after[None], 0)[0]
    return np.where(labels.any(0), (above + np.minimum(below, above)) / 2, 0.5)


def f1_scores(predicted: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """F1 of each class, (K,), given bool (N, K); nan for a class that no item has."""
    right, all_ = (predicted & labels).sum(0), predicted.sum(0) + labels.sum(0)
    return np.where(labels.any(0), 2 * right / np.maximum(all_, 1), np.nan)


def _resamples(units: np.ndarray, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """How often each item is in a resample of the units; nothing where there are too few of them."""
    _, codes = np.unique(units, return_inverse=True)
    count = int(codes.max()) + 1
    for _ in range(REPEATS if count >= MIN_UNITS else 0):
        yield rng.multinomial(count, np.full(count, 1 / count))[codes].astype(np.float64)
