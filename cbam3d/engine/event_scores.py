"""Average precision of events: what was found along time against what is true."""

from collections.abc import Iterable, Sequence

import numpy as np

from cbam3d.engine.events import Event

Truth = dict[str, list[tuple[str, float, float]]]  # label -> video, start, end


def segment_average_precisions(
    truth: Truth, found: Iterable[tuple[str, Event]], tious: Sequence[float]
) -> dict[str, list[float]]:
    """Average precision of each label for each overlap, as ActivityNet defines it (Heilbron et al., CVPR 2015,
    https://doi.org/10.1109/CVPR.2015.7298698, and its evaluation code).

    Over all videos, the events of a label are taken by falling score. An event is right if it overlaps a true one of
    its video, that no event before it has taken, by at least that share of their union (temporal IoU). Precision is
    interpolated: that of a recall is the highest of all recalls from there on.

    Args:
        truth: the true events.
        found: videos with the events found in them.
        tious: shares of the union, 0 … 1.
    """
    by_label: dict[str, list[tuple[str, Event]]] = {label: [] for label in truth}
    for video, event in found:
        if event.label in by_label:
            by_label[event.label].append((video, event))
    return {label: [_average_precision(truth[label], by_label[label], tiou) for tiou in tious] for label in truth}


def _average_precision(truth: list[tuple[str, float, float]], found: list[tuple[str, Event]], tiou: float) -> float:
    in_video: dict[str, list[int]] = {}
    for number, (video, *_) in enumerate(truth):
        in_video.setdefault(video, []).append(number)
    taken, right = set[int](), list[bool]()
    for video, event in sorted(found, key=lambda one: -one[1].score):
        overlaps = [(_tiou(event, truth[number]), number) for number in in_video.get(video, []) if number not in taken]
        best, number = max(overlaps, default=(0.0, -1))
        right.append(best >= tiou and number >= 0)
        if right[-1]:
            taken.add(number)
    if not right:
        return 0.0
    hits = np.cumsum(right)
    precision = hits / np.arange(1, len(right) + 1)
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return float((precision * np.array(right)).sum() / len(truth))


def _tiou(event: Event, true: tuple[str, float, float]) -> float:
    _, start, end = true
    shared = min(event.end_seconds, end) - max(event.start_seconds, start)
    union = max(event.end_seconds, end) - min(event.start_seconds, start)
    return max(0.0, shared) / union if union > 0 else 0.0
