import json

import pytest
import torch
from PIL import Image

from cbam3d.engine.report import EpochTable, SkippedFiles, plot_confusion, plot_curves, plot_steps, write_json
from cbam3d.errors import InputError


def test_rows_may_have_different_columns(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    table.add({"epoch": 1, "train_loss": 0.5})
    table.add({"epoch": 2, "train_loss": 0.25, "video_top1": 0.75})
    assert (tmp_path / "metrics.csv").read_text() == "epoch,train_loss,video_top1\n1,0.5,\n2,0.25,0.75\n"
    assert table.column("video_top1") == ([2], [0.75])


def test_a_resumed_run_drops_the_rows_it_will_write_again(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    for epoch in (1, 2, 3):
        table.add({"epoch": epoch, "train_loss": epoch / 10})
    assert EpochTable(tmp_path / "metrics.csv", 2).column("train_loss") == ([1, 2], [0.1, 0.2])
    assert EpochTable(tmp_path / "metrics.csv", 0).rows == []  # a new run


def test_skipped_files_are_listed_once_up_to_a_limit(tmp_path):
    skipped = SkippedFiles(tmp_path / "skipped.csv", limit=2)
    assert skipped.add([("a.mp4", "empty file")]) == ["a.mp4: empty file"]
    assert skipped.add([("a.mp4", "empty file"), ("b,c.mp4", "cut")]) == ["b,c.mp4: cut"]
    assert (tmp_path / "skipped.csv").read_text() == 'path,reason\na.mp4,empty file\n"b,c.mp4",cut\n'
    with pytest.raises(InputError, match=r"3 files cannot be used, data.max_bad_videos is 2.*a\.mp4: empty file"):
        skipped.add([("d.mp4", "cut")])
    assert "d.mp4,cut" in (tmp_path / "skipped.csv").read_text()  # nothing lost


def test_json_is_whole_or_absent(tmp_path):
    write_json(tmp_path / "x.json", {"video_top1": 0.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"video_top1": 0.5}
    with pytest.raises(TypeError):
        write_json(tmp_path / "y.json", {"x": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


def test_plots_are_pictures(tmp_path):
    table = EpochTable(tmp_path / "metrics.csv", 0)
    table.add({"epoch": 1, "train_loss": 0.5, "loss": 0.7, "video_top1": 0.2})
    plot_curves(table, tmp_path / "curves.png", ["video_top1"])
    (tmp_path / "steps.csv").write_text("step,loss,learning_rate\n1,2.5,0.1\n2,nan,0.1\n3,1.5,0.1\n")
    plot_steps(tmp_path / "steps.csv", tmp_path / "steps.png")
    plot_confusion(torch.tensor([[3, 1], [0, 0]]), ["a", "b"], tmp_path / "confusion.png")
    for name in ("curves.png", "steps.png", "confusion.png"):
        with Image.open(tmp_path / name) as picture:
            assert min(picture.size) > 200
            assert len(picture.convert("RGB").getcolors(1 << 20) or []) > 20
