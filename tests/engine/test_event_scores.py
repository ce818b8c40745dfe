"""Average precision of events, against a reference that follows the text of ActivityNet's definition."""

import numpy as np
import pytest

from cbam3d.engine.event_scores import segment_average_precisions
from cbam3d.engine.events import Event


def reference(truth, found, tiou):
    """One class. truth: (video, start, end); found: (video, start, end, score)."""
    found = sorted(found, key=lambda one: -one[3])
    free = [True] * len(truth)
    true_positive = []
    for video, start, end, _ in found:
        candidates = []
        for i, (other, a, b) in enumerate(truth):
            if other == video:
                overlap = max(0, min(end, b) - max(start, a))
                candidates.append((overlap / (end - start + b - a - overlap), i))
        for share, i in sorted(candidates, reverse=True):
            if share < tiou:
                true_positive.append(0)
                break
            if free[i]:
                free[i] = False
                true_positive.append(1)
                break
        else:
            true_positive.append(0)
    true_positive = np.array(true_positive)
    recall = np.concatenate([[0], np.cumsum(true_positive) / len(truth), [1]])
    precision = np.concatenate([[0], np.cumsum(true_positive) / np.arange(1, len(found) + 1), [0]])
    for i in range(len(precision) - 2, -1, -1):
        precision[i] = max(precision[i], precision[i + 1])
    steps = np.flatnonzero(recall[1:] != recall[:-1]) + 1
    return float(((recall[steps] - recall[steps - 1]) * precision[steps]).sum())


def test_by_hand():
    truth = {"a": [("v", 0, 10), ("v", 20, 30), ("w", 0, 10)], "b": [("v", 0, 1)]}
    found = [
        ("v", Event("a", 1, 10, 0.9)),  # 0.9 of the first
        ("v", Event("a", 0, 9, 0.8)),  # of the first again, which is taken
        ("w", Event("a", 0, 5, 0.7)),  # 0.5
        ("u", Event("c", 0, 5, 0.7)),
    ]
    expected = {"a": [(1 + 2 / 3) / 3, 1 / 3], "b": [0.0, 0.0]}
    scores = segment_average_precisions(truth, found, [0.5, 0.6])
    assert scores == {label: pytest.approx(values) for label, values in expected.items()}


@pytest.mark.parametrize("seed", range(6))
def test_against_the_reference(seed):
    rng = np.random.default_rng(seed)

    def spans(count):
        starts = rng.uniform(0, 60, count)
        return [
            (str(rng.integers(4)), float(a), float(a + b))
            for a, b in zip(starts, rng.uniform(1, 15, count), strict=True)
        ]

    truth = spans(15)
    near = [(v, a + rng.normal(0, 1), b + abs(rng.normal(0, 2))) for v, a, b in truth for _ in range(2)]
    found = [(*span, float(score)) for span, score in zip(near + spans(10), rng.random(40), strict=True)]
    tious = [0.3, 0.5, 0.7]
    ours = segment_average_precisions({"a": truth}, [(v, Event("a", a, b, s)) for v, a, b, s in found], tious)["a"]
    assert ours == pytest.approx([reference(truth, found, tiou) for tiou in tious])
    assert 0 < ours[1] < 1
