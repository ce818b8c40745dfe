import json

import pytest

from cbam3d.engine.records import EpochTable, SkippedFiles, write_json
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


def test_skipped_files_are_listed_once_up_to_a_limit(tmp_path, caplog):
    skipped = SkippedFiles(tmp_path / "skipped.csv", limit=2)
    skipped.add([("a.mp4", "empty file")])
    skipped.add([("a.mp4", "empty file"), ("b,c.mp4", "cut")])
    assert caplog.messages == ["skipped a.mp4: empty file", "skipped b,c.mp4: cut"]
    assert (tmp_path / "skipped.csv").read_text() == 'path,reason\na.mp4,empty file\n"b,c.mp4",cut\n'
    with pytest.raises(InputError, match=r"3 files cannot be used, data.max_bad_videos is 2.*a\.mp4: empty file"):
        skipped.add([("d.mp4", "cut")])
    assert "d.mp4,cut" in (tmp_path / "skipped.csv").read_text()  # nothing lost


def test_json_is_whole_or_absent(tmp_path):
    write_json(tmp_path / "x.json", {"video_top1": 0.5})
    assert json.loads((tmp_path / "x.json").read_text()) == {"video_top1": 0.5}
    with pytest.raises(TypeError):
        write_json(tmp_path / "y.json", {"x": {1, 2}})
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]
