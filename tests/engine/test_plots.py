import logging

import numpy as np
import pytest
import torch
from PIL import Image

from cbam3d.engine.plots import plot_comparison, plot_confusion, plot_curves, plot_steps
from cbam3d.engine.records import EpochTable

pytestmark = pytest.mark.draws


def pixels(path):
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB")).astype(int)


def test_curves_show_what_the_table_has(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    for epoch in (1, 2):
        table.add({"epoch": epoch, "train_loss": 0.5 / epoch, "loss": 0.7, "top1": 0.2 * epoch, "top5": 0.9})
    plot_curves(tmp_path / "one.png", table, ["top1"])
    plot_curves(tmp_path / "both.png", table, ["top1", "top5"])
    left, right = np.split((pixels(tmp_path / "one.png") != pixels(tmp_path / "both.png")).any(2), 2, 1)
    assert not left.any()  # the losses are the same
    assert right.sum() > 100  # the second score is drawn


def test_steps_without_a_number_are_left_out(tmp_path):
    tables = {"with": "1,2.5,0.1\n2,nan,0.1\n3,1.5,0.1\n", "without": "1,2.5,0.1\n3,1.5,0.1\n"}
    for name, rows in tables.items():
        (tmp_path / f"{name}.csv").write_text(f"step,loss,learning_rate\n{rows}")
        plot_steps(tmp_path / f"{name}.png", tmp_path / f"{name}.csv")
    assert (pixels(tmp_path / "with.png") == pixels(tmp_path / "without.png")).all()


def test_a_share_of_one_is_dark_and_one_of_none_is_light(tmp_path):
    plot_confusion(tmp_path / "right.png", torch.tensor([[3, 0], [0, 3]]), ["a", "b"])
    plot_confusion(tmp_path / "wrong.png", torch.tensor([[0, 3], [3, 0]]), ["a", "b"])
    right, wrong = pixels(tmp_path / "right.png"), pixels(tmp_path / "wrong.png")
    rows, columns = np.nonzero((right != wrong).any(2))
    height, width = rows.max() - rows.min(), columns.max() - columns.min()
    row, column = rows.min() + height // 8, columns.min() + width // 8  # in the first cell, beside its number
    assert right[row, column].tolist() == [8, 48, 107]  # the darkest blue
    assert wrong[row, column].tolist() == [247, 251, 255]


@pytest.mark.parametrize("name", ["$x$", "$\\frac{", "a_b^c", "caf\udce9", "跳绳", "a" * 300])
def test_names_are_drawn_as_they_are(tmp_path, caplog, name, recwarn):
    with caplog.at_level(logging.WARNING, "cbam3d"):
        plot_confusion(tmp_path / "confusion.png", torch.eye(2), [name, "b"])
        plot_comparison(tmp_path / "comparison.png", [name, "b"], [[0.1], [0.2]], [(0, 0, 0), (0.1, 0.0, 0.2)], "top1")
    assert not caplog.records
    recwarn.clear()  # glyphs that a font lacks
    assert (tmp_path / "confusion.png").stat().st_size > 1000
    assert (tmp_path / "comparison.png").stat().st_size > 1000


def test_dollars_are_no_mathematics(tmp_path):
    plot_confusion(tmp_path / "a.png", torch.eye(2), ["$x$", "b"])
    plot_confusion(tmp_path / "b.png", torch.eye(2), ["x", "b"])
    assert pixels(tmp_path / "a.png").shape == pixels(tmp_path / "b.png").shape
    assert (pixels(tmp_path / "a.png") != pixels(tmp_path / "b.png")).any()


def test_a_picture_that_fails_is_a_warning(tmp_path, caplog):
    plot_confusion(tmp_path / "no folder" / "confusion.png", torch.eye(2), ["a", "b"])
    assert "confusion.png: cannot be drawn (FileNotFoundError" in caplog.text
