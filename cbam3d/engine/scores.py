"""Scores of predictions and their uncertainty: pure functions of probabilities and labels."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

REPEATS = 2000  # of the bootstrap
_AT_ONCE = 100  # resamples
MIN_UNITS = 5  # of 4, 35 different resamples can be drawn: fewer than the 40 of which 2.5 % is one


@dataclass(frozen=True)
class Predictions:
    """One row per item.

    Args:
        names: paths below the root.
        labels: true classes, int (N,); or where there may be several, whether an item has each, bool (N, K).
        probabilities: (N, K); of a video the mean over its clips.
    """

    names: list[str]
    labels: np.ndarray
    probabilities: np.ndarray

    @classmethod
    def none(cls) -> "Predictions":
        """No row."""
        return cls([], np.empty(0, np.int64), np.empty((0, 0), np.float32))

    @classmethod
    def of(cls, rows: list[tuple[str, Any, np.ndarray]]) -> "Predictions":
        """From (name, label, probabilities), in the order of the names."""
        names, labels, probabilities = zip(*sorted(rows, key=lambda row: row[0]), strict=True)
        return cls(list(names), np.array(labels), np.stack(probabilities))

    @property
    def several(self) -> bool:
        """Whether items may have several labels."""
        return self.labels.ndim == 2

    def hits(self, k: int = 1) -> np.ndarray:
        """Whether the true class is among the k most probable, bool (N,)."""
        return ranks(torch.from_numpy(self.probabilities), torch.from_numpy(self.labels)).numpy() < k


def ranks(probabilities: Tensor, labels: Tensor) -> Tensor:
    """The rank of the true class, 0 for the most probable, (N,); ties go to the first class, and nan is
    last."""
    own = probabilities.gather(1, labels[:, None])
    earlier = torch.arange(probabilities.shape[1], device=labels.device) < labels[:, None]
    return ((probabilities > own) | ((probabilities == own) & earlier) | own.isnan()).sum(1)


def class_accuracies(hits: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Accuracy of each class, (K,); nan for a class without items."""
    counts = np.bincount(labels, minlength=num_classes)
    right = np.bincount(labels, weights=hits, minlength=num_classes)
    return np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, num_bins: int = 15) -> float:
    """Expected calibration error: the mean gap between confidence and accuracy, over equal bins of confidence.

    Guo, Pleiss, Sun, Weinberger, ICML 2017, https://arxiv.org/abs/1706.04599
    """
    confidence, hits = probabilities.max(1), probabilities.argmax(1) == labels
    bins = np.minimum((np.ceil(confidence * num_bins) - 1).clip(0), num_bins - 1).astype(int)
    gaps = np.bincount(bins, weights=hits - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def bounds(values: np.ndarray | list[float]) -> tuple[float, float]:
    """Of the middle 95 % of what a bootstrap found; unbounded where it found nothing."""
    if not np.size(values):
        return -math.inf, math.inf
    low, high = np.nanpercentile(values, [2.5, 97.5])
    return float(low), float(high)


def expanded_bounds(found: np.ndarray, estimate: np.ndarray | float, num_units: np.ndarray | int) -> np.ndarray:
    """95 % intervals from what a bootstrap over units found.

    Args:
        found: of R resamples, (R,) or (R, K).
        estimate: of all items, () or (K,).
        num_units: G, how many units were resampled, () or (K,).

    Returns:
        Lower and upper bounds, (2,) or (2, K).

    Percentiles around the estimate, without the bootstrap's bias, and as much wider as the mean of G values needs: by
    t(G - 1) against the normal distribution, and √(G / (G - 1)), by which resamples vary too little (Hesterberg, "What
    Teachers Should Know About the Bootstrap", The American Statistician 69(4), 2015, https://arxiv.org/abs/1411.5279).
    """
    wider = _t_quantile(num_units - 1) / 1.96 * np.sqrt(num_units / (num_units - 1))
    return estimate + wider * (np.nanpercentile(found, [2.5, 97.5], axis=0) - np.nanmean(found, 0))


def score_bounds(found: np.ndarray, estimate: np.ndarray | float, num_units: np.ndarray | int) -> np.ndarray:
    """The same of scores of 0 … 1. Where every unit has 0 or 1, resamples do not differ: from there to what G units
    would miss in 2.5 of 100 cases (Clopper and Pearson, Biometrika 26, 1934)."""
    estimate = np.asarray(estimate)
    between = np.clip(expanded_bounds(found, estimate, num_units), 0, 1)
    missed = 0.025 ** (1 / num_units)
    ends = np.array([np.where(estimate < 1, 0, missed), np.where(estimate > 0, 1, 1 - missed)])
    return np.where((estimate > 0) & (estimate < 1), between, ends)


def _t_quantile(freedom: np.ndarray | int) -> np.ndarray | float:
    """97.5 % quantile of Student's t: within 0.3 % from 4 degrees of freedom on (Abramowitz and Stegun, 26.7.5)."""
    z, n = 1.959964, freedom
    terms = (z**3 + z) / 4, (5 * z**5 + 16 * z**3 + 3 * z) / 96, (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + sum(term / n**power for power, term in enumerate(terms, start=1))


def accuracy_interval(hits: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """95 % interval of an accuracy, by bootstrap over units, as `score_bounds`.

    Args:
        hits: bool (N,).
        units: as in `mean_interval`.
    """
    found, num_units = _resampled_means(hits, units)
    if not len(found):
        return -math.inf, math.inf
    low, high = score_bounds(found, hits.mean(), num_units).tolist()
    return low, high


def mean_interval(values: np.ndarray, units: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of `values`, by bootstrap over units.

    Args:
        values: one per item.
        units: what is resampled with replacement, one id per item: the group of a video, as videos of one group are
            not independent; or the item itself.

    From the means of 2,000 resamples (Efron, Annals of Statistics 7(1), 1979, https://doi.org/10.1214/aos/1176344552),
    by `expanded_bounds`. Of fewer than 5 units there are too few different resamples to have 2.5 %
    of: the interval is unbounded.
    """
    found, num_units = _resampled_means(values, units)
    if not len(found):
        return -math.inf, math.inf
    low, high = expanded_bounds(found, values.mean(), num_units).tolist()
    return low, high


def _resampled_means(values: np.ndarray, units: np.ndarray) -> tuple[np.ndarray, int]:
    """Of resamples of the units, none where there are too few; and the number of units."""
    _, codes = np.unique(units, return_inverse=True)
    sums, counts = np.bincount(codes, weights=values), np.bincount(codes)
    rng = np.random.default_rng(0)
    means = np.empty(REPEATS if len(counts) >= MIN_UNITS else 0)
    for i in range(len(means)):
        drawn = rng.integers(0, len(counts), len(counts))
        means[i] = sums[drawn].sum() / counts[drawn].sum()
    return means, len(counts)


def class_interval(hits: np.ndarray, labels: np.ndarray, units: np.ndarray, num_classes: int) -> tuple[float, float]:
    """As `accuracy_interval`, of the mean accuracy of the classes; of a class that a resample lacks, it lacks the
    accuracy.

    Args:
        hits: bool (N,).
        labels: true classes, int (N,).
        units: as in `mean_interval`.
        num_classes: K.
    """
    _, codes = np.unique(units, return_inverse=True)
    num_units = int(codes.max()) + 1
    if num_units < MIN_UNITS:
        return -math.inf, math.inf
    cells, shape = codes * num_classes + labels, (num_units, num_classes)
    counts = np.bincount(cells, minlength=math.prod(shape)).reshape(shape).astype(np.float32)
    right = np.bincount(cells, weights=hits, minlength=math.prod(shape)).reshape(shape).astype(np.float32)
    rng, means = np.random.default_rng(0), []
    for _ in range(0, REPEATS, _AT_ONCE):
        times = rng.multinomial(num_units, np.full(num_units, 1 / num_units), _AT_ONCE).astype(np.float32)
        all_drawn, right_drawn = times @ counts, times @ right
        there = all_drawn > 0
        accuracies = np.divide(right_drawn, all_drawn, out=np.zeros_like(all_drawn), where=there)
        means.append(accuracies.sum(1) / there.sum(1))
    estimate = float(np.nanmean(class_accuracies(hits, labels, num_classes)))
    low, high = score_bounds(np.concatenate(means), estimate, num_units).tolist()
    return low, high


@dataclass(frozen=True)
class PairedComparison:
    """Two sets of predictions of the same items, the second minus the first.

    Examples:
        >>> import cbam3d
        >>> run = cbam3d.open_run("runs/mine")
        >>> found = cbam3d.compare_runs(run.evaluate({"eval.num_clips": 1}), run.evaluate({"eval.num_clips": 2}))
        >>> found.low <= found.difference <= found.high
        True
    """

    difference: float  # of the accuracy, or of the mean average precision
    low: float  # of its 95 % interval
    high: float
    only_first: int = 0  # items that only the first gets right
    only_second: int = 0
    p_value: float | None = None  # of McNemar's exact test; None where items have groups or may have several labels

    @property
    def within_noise(self) -> bool:
        """Whether the interval contains 0."""
        return self.low <= 0 <= self.high


def compare_trainings(first: np.ndarray, second: np.ndarray, units: np.ndarray) -> tuple[float, float, float]:
    """Difference in accuracy between two ways to train, second minus first, and its 95 % interval.

    Args:
        first: hits of several trainings with different seeds on the same items, bool (S, N).
        second: likewise, (S', N).
        units: as in `mean_interval`.

    The interval is about new items and new seeds: both are drawn with replacement, independently of each other
    (Owen, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007, https://arxiv.org/abs/0712.1111). Of S
    seeds S - 1 are drawn at a time, as S would make their variance too small by the factor (S - 1) / S.
    """
    _, codes = np.unique(units, return_inverse=True)
    counts = np.bincount(codes)
    if len(counts) < MIN_UNITS:
        return float(second.mean() - first.mean()), -math.inf, math.inf
    by_unit = [np.stack([np.bincount(codes, weights=row) for row in hits]) for hits in (first, second)]
    rng = np.random.default_rng(0)
    differences = np.empty(REPEATS)
    for i in range(REPEATS):
        drawn = rng.integers(0, len(counts), len(counts))
        right = [sums[rng.integers(0, len(sums), max(1, len(sums) - 1))].mean(0)[drawn].sum() for sums in by_unit]
        differences[i] = (right[1] - right[0]) / counts[drawn].sum()
    return float(second.mean() - first.mean()), *bounds(differences)


def compare_paired(first: np.ndarray, second: np.ndarray, units: np.ndarray) -> PairedComparison:
    """Paired comparison of hits on the same items, both bool (N,); `units` as in `mean_interval`.

    McNemar, Psychometrika 12, 1947, https://doi.org/10.1007/BF02295996, with the binomial distribution: of items that
    are independent, each a unit of its own.
    """
    change = second.astype(float) - first
    low, high = mean_interval(change, units)
    only_first, only_second = int((first & ~second).sum()), int((second & ~first).sum())
    independent = len(np.unique(units)) == len(units)
    p_value = _mcnemar(only_first, only_second) if independent else None
    return PairedComparison(float(change.mean()), low, high, only_first, only_second, p_value)


def _mcnemar(b: int, c: int) -> float:
    """Two-sided exact binomial probability of a split at least as uneven as b to c."""
    n, most = b + c, max(b, c)
    if n == 0:
        return 1.0
    log_half = n * math.log(0.5)
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) + log_half for k in range(most, n + 1)]
    return min(1.0, 2 * math.fsum(math.exp(value) for value in logs))
