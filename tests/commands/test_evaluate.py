"""Scores of real runs: written, compared, and repeated by the classifier."""

import csv
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from cbam3d import load_run, sources
from cbam3d.cli import main
from cbam3d.commands.evaluate import Scored, together
from cbam3d.config import Config
from cbam3d.data import motion
from cbam3d.errors import InputError
from cbam3d.results import Result, groups_of
from tests.tiny import TINY


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs, `a` and `b`, that differ by their seed, on the same videos with groups."""
    root = tmp_path_factory.mktemp("evaluation")
    motion.render(root / "videos", num_groups=4)
    paths = sorted(path.relative_to(root / "videos") for path in (root / "videos").rglob("*.*"))
    with open(root / "groups.csv", "w", newline="") as file:
        rows = [(path.as_posix(), path.parent.name, f"g{i // 2}") for i, path in enumerate(paths)]
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    data = ["--data.root", str(root / "videos"), "--data.groups", str(root / "groups.csv")]
    for name in "ab":
        assert (
            main(
                [
                    "train",
                    "--config",
                    "folder",
                    *TINY,
                    *data,
                    "--run.dir",
                    str(root / name),
                    "--run.seed",
                    str(ord(name)),
                ]
            )
            == 0
        )
    return root


def table(path: Path) -> list[dict[str, str]]:
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_everything_that_is_written(runs, capsys):
    assert main(["evaluate", str(runs / "a"), "--views", "3x3"]) == 0
    shown = capsys.readouterr().out
    report = json.loads((runs / "a/evaluation.json").read_text())
    rows = table(runs / "a/evaluation/predictions.csv")
    assert len(rows) == report["num_videos"] == 16
    assert report["num_clips"] == 16 * 9
    assert report["num_groups"] == 8
    assert "bootstrap over 8 groups" in shown
    right = [int(row["right"]) for row in rows]
    assert report["video_top1"] == pytest.approx(np.mean(right))
    low, high = report["intervals_95"]["video_top1"]
    assert low <= report["video_top1"] <= high
    for row in rows:
        probabilities = [float(row[f"probability{k}"]) for k in range(1, 6)]
        assert probabilities == sorted(probabilities, reverse=True)
        assert row["right"] == str(int(row["top1"] == row["label"]))
    classes = table(runs / "a/evaluation/classes.csv")
    assert sum(int(row["items"]) for row in classes) == 16
    mean = np.mean([float(row["accuracy"]) for row in classes if row["items"] != "0"])
    assert report["video_mean_class_accuracy"] == pytest.approx(mean, abs=1e-3)
    confusion = table(runs / "a/evaluation/confusion.csv")
    assert sum(int(row[row["true \\ predicted"]]) for row in confusion) == sum(right)
    assert (runs / "a/evaluation/confusion.png").is_file()


def test_training_ends_with_what_evaluation_gives(runs):
    assert main(["evaluate", str(runs / "a")]) == 0
    trained, evaluated = (json.loads((runs / "a" / name).read_text()) for name in ("metrics.json", "evaluation.json"))
    for name in ("video_top1", "clip_top5", "video_mean_class_accuracy", "num_videos", "num_groups"):
        assert trained[name] == evaluated[name]
    assert trained["intervals_95"] == evaluated["intervals_95"]
    for name in ("predictions.csv", "classes.csv", "confusion.csv"):
        assert (runs / "a" / name).read_bytes() == (runs / "a/evaluation" / name).read_bytes()


def test_two_runs_are_compared_on_the_same_items(runs, capsys):
    assert main(["evaluate", str(runs / "a"), str(runs / "b")]) == 0
    shown = capsys.readouterr().out
    a, b = (table(runs / name / "evaluation/predictions.csv") for name in "ab")
    only_a = sum(x["right"] > y["right"] for x, y in zip(a, b, strict=True))
    only_b = sum(x["right"] < y["right"] for x, y in zip(a, b, strict=True))
    difference = 100 * (only_b - only_a) / len(a)
    assert f"{runs / 'b'} against {runs / 'a'}: {difference:+.2f} points" in shown
    assert f"right in one only: {only_b} and {only_a}" in shown
    capsys.readouterr()
    assert main(["evaluate", str(runs / "a"), str(runs / "a/checkpoints/best.ckpt")]) == 0
    assert "+0.00 points (95 % interval +0.00 … +0.00), within noise" in capsys.readouterr().out


def test_a_checkpoint_alone_is_scored_beside_itself(runs, tmp_path):
    shutil.copy(runs / "a/checkpoints/last.ckpt", tmp_path / "mine.ckpt")
    assert main(["evaluate", str(tmp_path / "mine.ckpt")]) == 0
    assert {path.name for path in tmp_path.iterdir()} == {"mine.ckpt", "mine"}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"evaluation", "evaluation.json"}


def test_the_classifier_gives_what_evaluation_gives(runs):
    assert main(["evaluate", str(runs / "a")]) == 0
    classifier = load_run(runs / "a")
    assert len(classifier.classes) == 8
    for row in table(runs / "a/evaluation/predictions.csv")[:4]:
        best = classifier(runs / "videos" / row["path"], top=5)
        assert [name for name, _ in best] == [row[f"top{k}"] for k in range(1, 6)]
        assert [value for _, value in best] == pytest.approx(
            [float(row[f"probability{k}"]) for k in range(1, 6)], abs=1e-5
        )
    probabilities = classifier.probabilities(runs / "videos" / row["path"])
    assert probabilities.sum().item() == pytest.approx(1)


def test_what_cannot_be_scored_is_one_line(runs, tmp_path, capsys):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(InputError, match=r"empty\.mp4: empty file"):
        load_run(runs / "a")(empty)
    with pytest.raises(InputError, match="no run in this folder"):
        load_run(tmp_path)
    torch.save({"model": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of cbam3d train"):
        load_run(tmp_path / "foreign.ckpt")
    assert main(["evaluate", str(runs / "a"), "--split", "val"]) == 2
    assert "no val split beside test" in capsys.readouterr().err
    assert main(["evaluate", str(runs / "a"), "--views", "many"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    (runs / "a" / "evaluation.json").unlink(missing_ok=True)
    assert main(["evaluate", str(runs / "a"), str(tmp_path / "nowhere")]) == 2
    assert not (runs / "a" / "evaluation.json").exists()  # nothing is scored before all are known
    capsys.readouterr()
    assert main(["evaluate"]) == 2
    assert "the following arguments are required: runs" in capsys.readouterr().err
    assert main(["evaluate", "--views", "1x1", str(runs / "a")]) == 2
    assert "the folder of a run comes first" in capsys.readouterr().err


def test_pictures_are_classified_too(picture_run):
    assert main(["evaluate", str(picture_run)]) == 0
    classifier, pictures = load_run(picture_run), picture_run.parent / "pictures"
    for row in table(picture_run / "evaluation/predictions.csv")[:3]:
        (name, value), _ = classifier(pictures / row["path"])
        assert name == row["top1"]
        assert value == pytest.approx(float(row["probability1"]), abs=1e-5)
    with pytest.raises(InputError, match=r"nowhere\.png: unreadable"):
        classifier(pictures / "nowhere.png")


def test_items_without_a_group_stand_for_themselves():
    class Table:
        path, group = ["a", "b", "c"], ["g", "", "g"]

    class Source:
        manifest = Table

    assert groups_of(Source, ["c", "b"]) == ["g", "b"]  # type: ignore[arg-type]


def test_runs_of_several_splits_are_averaged():
    def run(split, score):
        data = Config().data
        config = replace(Config(), data=replace(data, split=split))
        result = Result(None, [], [], {"video_top1": score}, {"video_top1": (0.0, 1.0)})  # type: ignore[arg-type]
        return Scored(None, config, result)  # type: ignore[arg-type]

    (text,) = together([run(1, 0.8), run(2, 0.9), run(3, 0.85)])
    assert text == "video_top1, mean over 3 splits: 85.00% (1: 80.00%, 2: 90.00%, 3: 85.00%)"


def test_other_classes_are_refused_before_videos_are_read(tiny_run, tmp_path, capsys, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.mp4").write_bytes(b"never opened")
    monkeypatch.setattr(sources, "scan_videos", None)
    assert main(["evaluate", str(tiny_run), "--data.root", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert f"{tmp_path} has the classes a, b, the checkpoint was trained on" in error
