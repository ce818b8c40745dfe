import numpy as np
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score, top_k_accuracy_score

from cbam3d.engine import scores
from cbam3d.engine.scores import (
    Predictions,
    accuracy_interval,
    calibration_error,
    class_accuracies,
    class_interval,
    compare_paired,
    compare_trainings,
    ranks,
)


def test_one_group_tells_nothing_of_others():
    hits, units = np.array([True, False, True]), np.array(["a", "a", "a"])
    assert accuracy_interval(hits, units) == (-np.inf, np.inf)
    assert compare_paired(hits, ~hits, units).within_noise
    assert compare_trainings(hits[None], ~hits[None], units)[1:] == (-np.inf, np.inf)


def random_predictions(n=200, num_classes=7, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.concatenate([np.arange(num_classes), rng.integers(0, num_classes, n - num_classes)])
    logits = rng.normal(size=(n, num_classes))
    logits[np.arange(n), labels] += 1
    powers = np.exp(logits)
    return Predictions([str(i) for i in range(n)], labels, powers / powers.sum(1, keepdims=True))


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_scikit_learns(k):
    given = random_predictions()
    expected = top_k_accuracy_score(given.labels, given.probabilities, k=k)
    assert given.hits(k).mean() == pytest.approx(expected)


def test_ties_go_to_the_first_class_as_argmax_does():
    probabilities = np.array([[0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert ranks(torch.from_numpy(probabilities), torch.tensor([0, 1, 2])).tolist() == [0, 1, 2]
    assert (probabilities.argmax(1) == 0).all()


def test_mean_class_accuracy_is_scikit_learns_balanced_accuracy():
    given = random_predictions()
    by_class = class_accuracies(given.hits(), given.labels, 7)
    expected = balanced_accuracy_score(given.labels, given.probabilities.argmax(1))
    assert by_class.mean() == pytest.approx(expected)
    assert np.isnan(class_accuracies(given.hits(), given.labels, 8)[7])  # a class without items


def test_calibration_by_hand():
    """Two bins of ten: confidences .95 (right) and .95 (wrong), .65 (right)."""
    probabilities = np.array([[0.95, 0.05], [0.95, 0.05], [0.35, 0.65]])
    labels = np.array([0, 1, 1])
    expected = (2 / 3) * abs(0.5 - 0.95) + (1 / 3) * abs(1.0 - 0.65)
    assert calibration_error(probabilities, labels, num_bins=10) == pytest.approx(expected)
    assert calibration_error(np.eye(3), np.arange(3)) == 0.0
    assert calibration_error(np.eye(3), np.array([1, 2, 0])) == 1.0


def test_calibration_is_the_papers_sum_over_bins():
    given = random_predictions(1000)
    confidences, hits = given.probabilities.max(1), given.probabilities.argmax(1) == given.labels
    expected = 0.0
    for m in range(15):
        inside = (confidences > m / 15) & (confidences <= (m + 1) / 15)
        if inside.any():
            expected += inside.mean() * abs(hits[inside].mean() - confidences[inside].mean())
    assert calibration_error(given.probabilities, given.labels) == pytest.approx(expected, abs=1e-9)


def test_the_interval_of_independent_items_is_the_binomial_one():
    hits = np.arange(400) < 300  # p = .75, standard error sqrt(p q / n) = .02165
    low, high = accuracy_interval(hits, np.arange(400))
    assert low == pytest.approx(0.75 - 1.96 * 0.02165, abs=0.006)
    assert high == pytest.approx(0.75 + 1.96 * 0.02165, abs=0.006)
    assert accuracy_interval(hits, np.arange(400)) == (low, high)  # the same again


def test_items_of_a_group_are_no_independent_evidence():
    """A hundred groups of four equal items: the interval of a hundred items, twice as wide as of four hundred."""
    hits = np.repeat(np.arange(100) < 75, 4)
    low, high = accuracy_interval(hits, np.repeat(np.arange(100), 4))
    apart = accuracy_interval(hits, np.arange(400))
    assert (high - low) / (apart[1] - apart[0]) == pytest.approx(2, abs=0.2)


@pytest.mark.parametrize(
    ("groups", "each", "accuracy", "spread"), [(150, 1, 0.8, 0), (6, 10, 0.7, 0.1), (20, 1, 0.97, 0)]
)
def test_the_interval_covers_the_truth(monkeypatch, groups, each, accuracy, spread):
    """Drawn again and again, 95 % of the intervals hold the accuracy, of few groups and of few mistakes too."""
    monkeypatch.setattr(scores, "REPEATS", 500)
    rng = np.random.default_rng(1)
    inside, units = 0, np.repeat(np.arange(groups), each)
    for _ in range(300):
        of_groups = accuracy + spread * rng.choice([-1, 1], groups)
        low, high = accuracy_interval(rng.random(len(units)) < of_groups[units], units)
        inside += low <= accuracy <= high
    assert inside >= 270


def test_the_interval_where_all_are_right_is_clopper_and_pearsons():
    from scipy.stats import binomtest, t

    for hits in (np.ones(20, bool), np.zeros(20, bool)):
        exact = binomtest(int(hits.sum()), 20).proportion_ci(0.95, "exact")
        assert accuracy_interval(hits, np.arange(20)) == pytest.approx((exact.low, exact.high))
        one_class = class_interval(hits, np.zeros(20, int), np.arange(20), 2)
        assert one_class == pytest.approx((exact.low, exact.high))
    for freedom in (4, 9, 50):
        assert scores._t_quantile(freedom) == pytest.approx(t.ppf(0.975, freedom), rel=0.003)


def test_a_paired_comparison_by_hand():
    first = np.array([1, 1, 1, 0, 0, 0, 0, 0, 0, 0], bool)
    second = np.array([1, 1, 0, 1, 1, 1, 1, 1, 0, 0], bool)
    found = compare_paired(first, second, np.arange(10))
    assert found.difference == pytest.approx(0.4)
    assert (found.only_first, found.only_second) == (1, 5)
    assert found.p_value == pytest.approx(2 * (6 + 1) / 2**6)  # five or six heads of six
    same = compare_paired(first, first, np.arange(10))
    assert (same.difference, same.p_value, same.within_noise) == (0.0, 1.0, True)


def test_pairing_sees_what_two_intervals_hide():
    """Eight more of a hundred right, none lost: far from noise, though both intervals overlap."""
    first, second = np.arange(100) < 60, np.arange(100) < 68
    found = compare_paired(first, second, np.arange(100))
    assert not found.within_noise
    assert found.p_value == pytest.approx(2 / 2**8)
    assert accuracy_interval(first, np.arange(100))[1] > accuracy_interval(second, np.arange(100))[0]


def test_trainings_of_equals_are_told_apart_as_seldom_as_promised(monkeypatch):
    """Items and seeds have effects of their own, the two ways to train are the same: 5 % of intervals may miss 0."""
    monkeypatch.setattr(scores, "REPEATS", 500)
    rng = np.random.default_rng(0)
    missed = 0
    for _ in range(100):
        ease = rng.normal(0.5, 1, 80)
        hits = [ease + rng.normal(0, 0.3, (3, 1)) + rng.normal(0, 1, (3, 80)) > 0 for _ in range(2)]
        _, low, high = compare_trainings(hits[0], hits[1], np.arange(80))
        missed += not low <= 0 <= high
    assert missed <= 10


def test_a_difference_that_is_there_is_found():
    rng = np.random.default_rng(1)
    worse, better = rng.random((3, 500)) < 0.6, rng.random((3, 500)) < 0.8
    difference, low, high = compare_trainings(worse, better, np.arange(500))
    assert difference == pytest.approx(better.mean() - worse.mean())
    assert 0.1 < low < difference < high < 0.3
    assert compare_trainings(worse, worse[:1], np.arange(500))[0] == pytest.approx(worse[0].mean() - worse.mean())


@pytest.mark.parametrize(("groups", "bounded"), [(1, False), (2, False), (4, False), (5, True), (9, True)])
def test_few_groups_have_no_interval(groups, bounded):
    """Of two groups the resamples' means are those of the groups, and the interval was of no width at all."""
    units, hits = np.arange(36) % groups, np.arange(36) % 3 == 0
    assert np.isfinite(accuracy_interval(hits, units)).all() == bounded
    assert np.isfinite(compare_trainings(hits[None], ~hits[None], units)).all() == bounded
    assert np.isfinite(compare_paired(hits, ~hits, units).high) == bounded


def test_the_interval_of_the_mean_class_accuracy_is_scipys():
    from scipy.stats import bootstrap

    rng = np.random.default_rng(0)
    labels = rng.choice(3, 300, p=[0.8, 0.15, 0.05])
    hits = rng.random(300) < np.array([0.9, 0.6, 0.3])[labels]

    def balanced(hits, labels):
        return np.mean([hits[labels == label].mean() for label in range(3)])

    theirs = bootstrap((hits, labels), balanced, paired=True, vectorized=False, n_resamples=2000, method="percentile")
    ours = class_interval(hits, labels, np.arange(300), 3)
    np.testing.assert_allclose(ours, theirs.confidence_interval, atol=0.015)  # 300 items: the expansion is small
    doubled = class_interval(np.repeat(hits, 2), np.repeat(labels, 2), np.repeat(np.arange(300), 2), 3)
    np.testing.assert_allclose(ours, doubled, atol=1e-6)  # two alike of one group tell no more than one
    assert class_interval(hits[:4], labels[:4], np.arange(4), 3) == (-np.inf, np.inf)
