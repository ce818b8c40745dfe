"""`cbam3d evaluate`, as a user asks for it."""

import json

import pytest

from cbam3d.cli import main
from cbam3d.errors import InputError
from tests.tiny import train_tiny


def test_scores_are_shown_and_several_runs_compared(tiny_run, capsys):
    best = tiny_run / "checkpoints/best.ckpt"
    assert main(["evaluate", str(tiny_run), str(best), "--views", "3x3", "--eval.batch_size", "7"]) == 0
    shown = capsys.readouterr().out
    report = json.loads((tiny_run / "evaluation.json").read_text())
    assert report["num_clips"] == report["num_videos"] * 9
    assert report["config"]["eval"]["batch_size"] == 7
    assert f"{report['video_top1']:.2%}" in shown
    assert "bootstrap over items" in shown
    verdict = "+0.00 points (95 % interval +0.00 … +0.00), within noise"
    assert f"{tiny_run} against {tiny_run}, video_top1: {verdict}" in shown


def test_runs_of_several_splits_are_averaged(tiny_run, tmp_path, capsys):
    values = {"data.split": 2, "data.stride": 1, "run.seed": 1}
    with pytest.raises(InputError, match=r"data\.split 2: folder has one split"):
        train_tiny(tiny_run.parent / "videos", tmp_path / "none", values)
    own_table = {"data.manifest": str(tiny_run / "manifest.csv")}
    other = train_tiny(tiny_run.parent / "videos", tmp_path / "second", values | own_table)
    assert main(["evaluate", str(tiny_run), str(other.folder)]) == 0
    first, second = (
        json.loads((run / "evaluation.json").read_text())["video_top1"] for run in (tiny_run, other.folder)
    )
    shown = f"mean over 2 splits: {(first + second) / 2:.2%} (1: {first:.2%}, 2: {second:.2%})"
    assert shown in " ".join(capsys.readouterr().out.split())


def test_mistakes_are_one_line(tiny_run, tmp_path, capsys):
    (tiny_run / "evaluation.json").unlink(missing_ok=True)
    for arguments, message in (
        ([tiny_run, "--views", "many"], "expected clips and crops such as 10x3, got 'many'"),
        ([tiny_run, tmp_path / "nowhere"], "no run in this folder"),  # said before the first one is scored
        ([], "the following arguments are required: runs"),
        ([tiny_run, "--data.rot", "x"], "did you mean 'data.root'"),
    ):
        assert main(["evaluate", *map(str, arguments)]) == 2
        error = capsys.readouterr().err
        assert message in error
        assert error.count("\n") == 1
    assert not (tiny_run / "evaluation.json").exists()
