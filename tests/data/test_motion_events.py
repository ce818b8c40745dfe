"""The long videos of motions: what the table says is what the pictures show."""

import csv
from itertools import pairwise

import numpy as np
import pytest

from cbam3d.data import motion_events
from cbam3d.data.motion import CLASSES, draw
from cbam3d.data.motion_events import NUM_EVENTS, script


@pytest.mark.parametrize("at_once", [1, 2])
@pytest.mark.parametrize("seed", range(4))
def test_in_an_event_its_quantities_move_and_in_a_pause_nothing_does(at_once, seed):
    poses, spans = script(np.random.default_rng(seed), at_once)
    assert len(spans) == NUM_EVENTS
    moves = np.diff(poses, axis=0)
    resting = np.ones(len(moves), bool)
    for labels, first, stop in spans:
        assert len(labels) == at_once
        expected = np.zeros(4)
        for label in labels:
            quantity, direction = CLASSES[label]
            expected[quantity] = direction
        steps = moves[first : stop - 1]
        np.testing.assert_array_equal(np.sign(np.round(steps, 9)), np.tile(expected, (len(steps), 1)))
        resting[first : stop - 1] = False
    np.testing.assert_allclose(moves[resting], 0, atol=1e-12)
    assert np.abs(poses[:, :2]).max() <= 0.65 + 1e-9
    assert all(b[1] - a[2] >= 12 for a, b in pairwise(spans))


def test_the_classes_are_about_equally_frequent():
    labels = [name for i in range(60) for own, *_ in script(np.random.default_rng(i), 1)[1] for name in own]
    counts = [labels.count(name) for name in CLASSES]
    assert max(counts) < 1.5 * min(counts)


def test_pictures_rest_and_move_with_the_poses():
    poses, spans = script(np.random.default_rng(3), 1)
    _, masks = draw(np.random.default_rng(0), poses, np.zeros((len(poses), 2)))
    change = (masks[1:] != masks[:-1]).any((1, 2))
    _, first, stop = spans[0]
    assert not change[: first - 1].any()
    assert change[first : stop - 1].mean() > 0.5


def test_the_same_seed_gives_the_same_table_and_new_textures_are_held_out(tmp_path, monkeypatch):
    monkeypatch.setattr(motion_events, "NUM_VIDEOS", {"train": 2, "val": 1, "test": 1})
    assert motion_events.render(tmp_path / "a", 2) == 4
    table = (tmp_path / "a" / "annotations.csv").read_bytes()
    (tmp_path / "a" / "annotations.csv").unlink()
    motion_events.render(tmp_path / "a", 2)
    assert (tmp_path / "a" / "annotations.csv").read_bytes() == table
    rows = list(csv.DictReader(table.decode().splitlines()))
    assert len(rows) == 4 * NUM_EVENTS
    assert {row["path"].split("/")[0] for row in rows if row["split"] == "test"} == {"test"}
    assert all(len(set(row["labels"].split("|"))) == 2 for row in rows)
