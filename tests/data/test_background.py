"""What lies between parts, by hand."""

import numpy as np
import pytest

from cbam3d.data.background import is_background, with_background
from cbam3d.data.loader import TrainBatches, visits
from cbam3d.data.manifest import from_rows
from cbam3d.errors import InputError


def row(path, label, first, count, split="train", **values):
    whole = {"path": path, "label": label, "group": path, "split": split, "fps": 10.0, "width": 8, "height": 8}
    times = {"start": first / 10, "end": (first + count) / 10, "first_frame": first, "num_frames": count}
    return {**whole, **times, "file_frames": 100, "duration_seconds": 10.0, "problem": "", **values}


def spans(table):
    return [(r["path"], r["label"], r["first_frame"], r["num_frames"], r["split"]) for r in table.rows()]


def test_gaps_of_a_clip_or_more_become_rows():
    rows = [row("a", "x", 10, 20), row("a", "y", 25, 10, "test"), row("a", "x", 40, 55), row("b", "x", 0, 100)]
    found = with_background(from_rows(rows), np.full(4, 5))
    assert spans(found) == [
        ("a", "background", 0, 10, "train"),
        ("a", "x", 10, 20, "train"),
        ("a", "y", 25, 10, "test"),
        ("a", "background", 35, 5, "test"),  # of the split of the part before it
        ("a", "x", 40, 55, "train"),
        ("a", "background", 95, 5, "train"),
        ("b", "x", 0, 100, "train"),
    ]
    assert [(r["start"], r["end"]) for r in found.rows()][3] == (3.5, 4.0)
    assert spans(with_background(found, np.full(7, 5))) == spans(found)
    assert spans(with_background(from_rows(rows), np.full(4, 11))) == spans(from_rows(rows))


def test_where_several_may_hold_it_has_no_label():
    found = with_background(from_rows([row("a", "x|y", 10, 90)], several=True), np.array([5]))
    assert [r["label"] for r in found.rows()] == ["", "x|y"]


def test_a_part_that_cannot_be_placed_leaves_none():
    lost = row("a", "y", 0, 0, start=7.0, end=12.0, problem="lies beyond the end of the video")
    assert len(with_background(from_rows([row("a", "x", 10, 20), lost]), np.full(2, 5))) == 2


def test_its_share_of_the_samples_is_as_asked_for():
    classes = ["background", "x", "y"]
    labels = np.array([0] * 10 + [1] * 60 + [2] * 30)
    np.testing.assert_array_equal(is_background(labels, classes), labels == 0)
    for balance, shares in ((0, [0.2, 0.8 * 2 / 3, 0.8 / 3]), (1, [0.2, 0.4, 0.4])):
        weights = visits(labels, balance, 0.2, classes)
        np.testing.assert_allclose(np.bincount(labels, weights) / len(labels), shares)
        batches = TrainBatches(labels, 10, 0, weights=weights)
        drawn = labels[[index.item for batch in batches for index in batch]]
        np.testing.assert_allclose(np.bincount(drawn, minlength=3), 100 * np.array(shares), atol=3)
    several = np.eye(3, dtype=bool)[labels][:, 1:]
    np.testing.assert_array_equal(is_background(several, ["x", "y"]), labels == 0)
    assert visits(labels, 0, 0, classes) is None
    with pytest.raises(InputError, match="between its parts"):
        visits(labels[10:], 0, 0.2, classes)
