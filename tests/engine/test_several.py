"""Scores of several labels an item, against scikit-learn, brute force and properties."""

import warnings

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, f1_score

from cbam3d.data.loader import Batch
from cbam3d.engine import several
from cbam3d.engine.scores import Predictions
from cbam3d.engine.several import Ranking, best_thresholds, compare_map, f1_scores, map_intervals
from cbam3d.engine.tables import read_predictions, write_class_scores, write_labels
from tests.engine.test_scoring import scores_of


def some(seed, count=60, num_classes=5, levels=8):
    """Probabilities with many ties, and labels."""
    rng = np.random.default_rng(seed)
    labels = rng.random((count, num_classes)) < 0.3
    labels[0] = True
    probabilities = ((rng.random((count, num_classes)) + 0.3 * labels) * levels).round() / (1.3 * levels)
    return probabilities, labels


@pytest.mark.parametrize("levels", [1, 8, 10**6])
def test_average_precision_is_scikit_learns(levels):
    probabilities, labels = some(levels, levels=levels)
    ranking = Ranking(probabilities, labels)
    np.testing.assert_allclose(
        ranking.average_precisions(), average_precision_score(labels, probabilities, average=None)
    )
    weights = np.random.default_rng(0).integers(0, 4, len(labels)).astype(float)
    expected = average_precision_score(labels, probabilities, average=None, sample_weight=weights)
    np.testing.assert_allclose(ranking.average_precisions(weights), expected)
    assert ranking.mean() == pytest.approx(average_precision_score(labels, probabilities))


def test_a_class_that_nothing_has_is_left_out():
    probabilities, labels = some(0)
    labels[:, 2] = False
    found = Ranking(probabilities, labels)
    assert np.isnan(found.average_precisions()).tolist() == [False, False, True, False, False]
    assert found.mean() == pytest.approx(np.delete(found.average_precisions(), 2).mean())


def test_thresholds_have_the_best_f1_of_all():
    probabilities, labels = some(1, levels=1000)
    thresholds = best_thresholds(probabilities, labels)
    ours = f1_scores(probabilities >= thresholds, labels)
    np.testing.assert_allclose(ours, f1_score(labels, probabilities >= thresholds, average=None))
    tried = np.concatenate([np.unique(probabilities), np.unique(probabilities) + 1e-6])
    best = np.max([f1_score(labels, probabilities >= t, average=None, zero_division=0) for t in tried], 0)
    np.testing.assert_allclose(ours, best)
    assert best_thresholds(probabilities, labels & False).tolist() == [0.5] * 5
    assert best_thresholds(np.array([[0.8], [0.2]]), np.array([[True], [False]])) == pytest.approx([0.5])


def test_intervals_are_about_units():
    probabilities, labels = some(2, 80)
    labels[:, 1] = False
    (low, high), of_classes = map_intervals(probabilities, labels, np.arange(80))
    ranking = Ranking(probabilities, labels)
    assert low < ranking.mean() < high
    own = ranking.average_precisions()
    assert np.isnan(of_classes[1]).all()
    assert all(of_classes[k, 0] < own[k] < of_classes[k, 1] for k in (0, 2, 3, 4))
    assert np.nanmean(of_classes[:, 1] - of_classes[:, 0]) > high - low  # a mean is known better
    doubled = [np.repeat(each, 2, 0) for each in (probabilities, labels, np.arange(80))]
    again, of_doubled = map_intervals(*doubled)
    np.testing.assert_allclose(again, (low, high), atol=1e-12)
    np.testing.assert_allclose(of_doubled, of_classes, atol=1e-12)
    labels[:, 2] = False
    labels[:4, 2] = True  # as good as known: of four items
    probabilities[:4, 2], probabilities[4:, 2] = 1, 0
    labels[4, 3] = probabilities[4, 3] = True
    _, of_classes = map_intervals(probabilities, labels, np.arange(80))
    assert np.isnan(of_classes[2]).all()
    labels[4, 2], probabilities[4, 2] = True, 1
    _, of_classes = map_intervals(probabilities, labels, np.arange(80))
    assert of_classes[2] == pytest.approx([0.025 ** (1 / 5), 1])  # of five, all first
    one, other = compare_map([probabilities], [probabilities], labels, np.arange(80))[1:]
    assert one == other == 0
    few, of_few = map_intervals(probabilities, labels, np.arange(80) % 4)
    assert few == (-np.inf, np.inf)
    assert np.isnan(of_few).all()


def test_a_random_order_has_the_precision_of_chance(monkeypatch):
    monkeypatch.setattr(several, "REPEATS", 200)
    rng = np.random.default_rng(0)
    labels = rng.random((200, 4)) < [0.02, 0.1, 0.3, 0]
    labels[0, :3] = True
    means, above = [], 0
    for _ in range(100):
        probabilities = rng.random(labels.shape)
        means.append(Ranking(probabilities, labels).average_precisions())
        (low, _), _ = map_intervals(probabilities, labels, np.arange(200))
        above += low > np.nanmean(several.chance_precisions(labels))
    np.testing.assert_allclose(np.mean(means, 0), several.chance_precisions(labels), rtol=0.15)
    assert above <= 10


def test_differences_of_equals_are_seldom_found_and_real_ones_are(monkeypatch):
    monkeypatch.setattr(several, "REPEATS", 500)
    rng = np.random.default_rng(0)
    missed, labels = 0, rng.random((60, 4)) < 0.4

    def trained(gain):
        return [gain * labels + rng.normal(0, 1, labels.shape) for _ in range(3)]

    for _ in range(12):
        _, low, high = compare_map(trained(1), trained(1), labels, np.arange(60))
        missed += not low <= 0 <= high
    assert missed <= 2
    first, second = trained(0.5), trained(3)
    difference, low, high = compare_map(first, second, labels, np.arange(60))
    expected = [np.mean([average_precision_score(labels, p) for p in side]) for side in (first, second)]
    assert difference == pytest.approx(expected[1] - expected[0])
    assert 0 < low < difference < high
    assert compare_map(first[:1], first[:1], labels, np.arange(60)) == (0, 0, 0)


def test_scoring_clips_and_videos():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(12, 3, 4, generator=generator) * 2
    labels = torch.rand(12, 4, generator=generator) < 0.4
    batches = [
        Batch(
            logits[i : i + 5].flatten(0, 1),
            labels[i : i + 5],
            labels[i : i + 5],
            [f"{j:02}" for j in range(i, i + n)],
            [],
        )
        for i, n in ((0, 5), (5, 5), (10, 2))
    ]
    found = scores_of(batches, 4, apart=True)
    probabilities = logits.double().sigmoid().numpy()
    clips, of_clips = probabilities.reshape(36, 4), labels.repeat_interleave(3, 0).numpy()
    entropy = np.where(of_clips, -np.log(clips), -np.log(1 - clips)).sum(1).mean()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "loss": entropy,
            "clip_map": average_precision_score(of_clips, clips),
            "video_map": average_precision_score(labels.numpy(), probabilities.mean(1)),
        }
    assert found.scores == pytest.approx(expected, rel=1e-5)
    assert found.counts == {"num_videos": 12, "num_clips": 36, "num_skipped": 0}
    assert found.confusion is None


def test_tables_hold_everything(tmp_path):
    probabilities, labels = some(3, 7, 3)
    classes = ["a", 'b "c"', "d"]
    given = Predictions([f"{i}.mp4" for i in range(7)], labels, probabilities)
    thresholds = np.array([0.2, 0.5, 0.9])
    path = tmp_path / "predictions.csv"
    write_labels(path, given, ["g"] * 7, classes, thresholds)
    names, groups, found, own = read_predictions(path)
    assert (names, groups) == (given.names, ["g"] * 7)
    np.testing.assert_array_equal(own, labels)
    np.testing.assert_allclose(found, probabilities, rtol=1e-8)
    between = np.array([[0.1, 0.9], [0.2, 0.8], [np.nan, np.nan]])
    write_class_scores(tmp_path / "classes.csv", given, classes, thresholds, between)
    header, *rows = [line.split(",") for line in (tmp_path / "classes.csv").read_text().splitlines()]
    assert header[:6] == ["class", "items", "average_precision", "low", "high", "threshold"]
    assert [row[3:5] for row in rows] == [["0.1000", "0.9000"], ["0.2000", "0.8000"], ["", ""]]
    assert [float(row[2]) for row in rows] == pytest.approx(
        average_precision_score(labels, probabilities, average=None), abs=1e-4
    )
