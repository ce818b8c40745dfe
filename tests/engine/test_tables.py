import csv

import numpy as np
import torch

from cbam3d.engine.scores import Predictions
from cbam3d.engine.tables import write_classes, write_confusion, write_predictions

CLASSES = ["run", "jump, high", "sit"]
GIVEN = Predictions(
    ["a.mp4", "b.mp4", "c.mp4", "d.mp4"],
    np.array([0, 0, 1, 0]),
    np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.5, 0.3], [0.25, 0.25, 0.5]]),
)


def read(path):
    with open(path, newline="") as file:
        return list(csv.reader(file))


def test_a_row_an_item(tmp_path):
    write_predictions(tmp_path / "p.csv", GIVEN, ["g1", "g1", "g2", "g2"], CLASSES)
    header, first, second, _, last = read(tmp_path / "p.csv")
    assert header[:6] == ["path", "group", "label", "right", "top1", "probability1"]
    assert header[-1] == "probability3"
    assert first == ["a.mp4", "g1", "run", "1", "run", "0.700000", "jump, high", "0.200000", "sit", "0.100000"]
    assert second[:6] == ["b.mp4", "g1", "run", "0", "jump, high", "0.600000"]
    assert last[4:] == ["sit", "0.500000", "run", "0.250000", "jump, high", "0.250000"]  # ties in the classes' order


def test_a_row_a_class(tmp_path):
    write_classes(tmp_path / "c.csv", GIVEN, CLASSES)
    assert read(tmp_path / "c.csv")[1:] == [
        ["run", "3", "0.3333", "jump, high", "1"],
        ["jump, high", "1", "1.0000", "", "0"],
        ["sit", "0", "", "", "0"],
    ]


def test_who_is_taken_for_whom(tmp_path):
    write_confusion(tmp_path / "m.csv", torch.tensor([[1, 1, 1], [0, 1, 0], [0, 0, 0]]), CLASSES)
    rows = read(tmp_path / "m.csv")
    assert rows[0] == ["true \\ predicted", *CLASSES]
    assert rows[1] == ["run", "1", "1", "1"]
