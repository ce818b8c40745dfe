"""Scores of real runs: written, compared, and repeated by the predictor."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from cbam3d import compare_runs, load_run, open_dataset, open_run
from cbam3d.cli.main import main
from cbam3d.cli.train import parser
from cbam3d.config import load_config
from cbam3d.data import motion
from cbam3d.errors import InputError
from cbam3d.runs import table as tables
from cbam3d.runs.results import Result, groups_of, mean_over_splits
from tests.conftest import rows_of
from tests.tiny import train_tiny


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    """Two runs, `a` and `b`, that differ by their seed, on the same videos with groups."""
    root = tmp_path_factory.mktemp("evaluation")
    motion.render(root / "videos", num_groups=4)
    paths = sorted(path.relative_to(root / "videos") for path in (root / "videos").rglob("*.*"))
    with open(root / "groups.csv", "w", newline="") as file:
        rows = [(path.as_posix(), path.parent.name, f"g{i // 2}") for i, path in enumerate(paths)]
        csv.writer(file).writerows([("path", "label", "group"), *rows])
    for name in "ab":
        train_tiny(root / "videos", root / name, {"data.groups": str(root / "groups.csv"), "run.seed": ord(name)})
    return root


def test_everything_that_is_written(runs):
    result = open_run(runs / "a").evaluate({"eval.num_clips": 3, "eval.num_crops": 3})
    report = json.loads((runs / "a/evaluation.json").read_text())
    rows = rows_of(runs / "a/evaluation/predictions.csv")
    assert len(rows) == report["num_videos"] == 16
    assert report["num_clips"] == 16 * 9
    assert report["num_groups"] == 8
    assert len(set(result.groups)) == 8
    assert result.scores["video_top1"] == report["video_top1"]
    right = [int(row["right"]) for row in rows]
    assert report["video_top1"] == pytest.approx(np.mean(right))
    low, high = report["intervals_95"]["video_top1"]
    assert low <= report["video_top1"] <= high
    for row in rows:
        probabilities = [float(row[f"probability{k}"]) for k in range(1, 6)]
        assert probabilities == sorted(probabilities, reverse=True)
        assert row["right"] == str(int(row["top1"] == row["label"]))
    classes = rows_of(runs / "a/evaluation/classes.csv")
    assert sum(int(row["items"]) for row in classes) == 16
    mean = np.mean([float(row["accuracy"]) for row in classes if row["items"] != "0"])
    assert report["video_mean_class_accuracy"] == pytest.approx(mean, abs=1e-3)
    confusion = rows_of(runs / "a/evaluation/confusion.csv")
    assert sum(int(row[row["true \\ predicted"]]) for row in confusion) == sum(right)
    assert (runs / "a/evaluation/confusion.png").is_file()


def test_training_ends_with_what_evaluation_gives(runs):
    open_run(runs / "a").evaluate()
    trained, evaluated = (json.loads((runs / "a" / name).read_text()) for name in ("metrics.json", "evaluation.json"))
    for name in ("video_top1", "clip_top5", "video_mean_class_accuracy", "num_videos", "num_groups"):
        assert trained[name] == evaluated[name]
    assert trained["intervals_95"] == evaluated["intervals_95"]
    for name in ("predictions.csv", "classes.csv", "confusion.csv"):
        assert (runs / "a" / name).read_bytes() == (runs / "a/evaluation" / name).read_bytes()


def test_two_runs_are_compared_on_the_same_items(runs):
    results = [open_run(runs / name).evaluate() for name in "ab"]
    found = compare_runs(*results)
    a, b = (rows_of(runs / name / "evaluation/predictions.csv") for name in "ab")
    only_a = sum(x["right"] > y["right"] for x, y in zip(a, b, strict=True))
    only_b = sum(x["right"] < y["right"] for x, y in zip(a, b, strict=True))
    assert (found.only_first, found.only_second) == (only_a, only_b)
    assert found.difference == pytest.approx((only_b - only_a) / len(a))
    same = compare_runs(results[0], open_run(runs / "a/checkpoints/best.ckpt").evaluate())
    assert (same.difference, same.low, same.high, same.within_noise) == (0, 0, 0, True)


def test_runs_on_other_items_are_not_compared(runs, tiny_run):
    with pytest.raises(InputError, match="scored on other items"):
        compare_runs(open_run(runs / "a").evaluate(), open_run(tiny_run).evaluate())


def test_a_checkpoint_alone_is_scored_beside_itself(runs, tmp_path):
    shutil.copy(runs / "a/checkpoints/last.ckpt", tmp_path / "mine.ckpt")
    open_run(tmp_path / "mine.ckpt").evaluate()
    assert {path.name for path in tmp_path.iterdir()} == {"mine.ckpt", "mine"}
    assert {path.name for path in (tmp_path / "mine").iterdir()} == {"evaluation", "evaluation.json"}


def test_the_predictor_gives_what_evaluation_gives(runs):
    open_run(runs / "a").evaluate()
    predictor = load_run(runs / "a")
    assert len(predictor.classes) == 8
    for row in rows_of(runs / "a/evaluation/predictions.csv")[:4]:
        best = predictor(runs / "videos" / row["path"], top=5)
        assert [name for name, _ in best] == [row[f"top{k}"] for k in range(1, 6)]
        assert [value for _, value in best] == pytest.approx(
            [float(row[f"probability{k}"]) for k in range(1, 6)], abs=1e-5
        )
    probabilities = predictor.probabilities(runs / "videos" / row["path"])
    assert probabilities.sum().item() == pytest.approx(1)


def test_what_cannot_be_scored_is_one_line(runs, tmp_path):
    empty = tmp_path / "empty.mp4"
    empty.touch()
    with pytest.raises(InputError, match=r"empty\.mp4: empty file"):
        load_run(runs / "a")(empty)
    with pytest.raises(InputError, match="no run in this folder"):
        load_run(tmp_path)
    torch.save({"model": {}}, tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="not a checkpoint of cbam3d train"):
        load_run(tmp_path / "foreign.ckpt")
    with pytest.raises(InputError, match="no val split beside test"):
        open_run(runs / "a").evaluate(split="val")
    with pytest.raises(InputError, match="split must be val or test, got 'train'"):
        open_run(runs / "a").evaluate(split="train")
    with pytest.raises(InputError, match=r"data\.test_fraction is not what the run was trained with"):
        open_run(runs / "a").evaluate({"data.test_fraction": 0.4})


def test_pictures_are_classified_too(picture_run):
    open_run(picture_run).evaluate()
    predictor, pictures = load_run(picture_run), picture_run.parent / "pictures"
    for row in rows_of(picture_run / "evaluation/predictions.csv")[:3]:
        (name, value), _ = predictor(pictures / row["path"])
        assert name == row["top1"]
        assert value == pytest.approx(float(row["probability1"]), abs=1e-5)
    with pytest.raises(InputError, match=r"nowhere\.png: unreadable"):
        predictor(pictures / "nowhere.png")


def test_items_without_a_group_stand_for_themselves():
    class Table:
        names, group = staticmethod(lambda: ["a", "b", "c"]), ["g", "", "g"]

    class Source:
        manifest = Table

    assert groups_of(Source, ["c", "b"]) == ["g", "b"]  # type: ignore[arg-type]


def test_runs_of_several_splits_are_averaged():
    def result(score):
        return Result(None, [], [], {"video_top1": score}, {"video_top1": (0.0, 1.0)}, 0)  # type: ignore[arg-type]

    found = mean_over_splits([(1, result(0.8)), (2, result(0.9)), (3, result(0.85))])
    assert (found.score, found.mean) == ("video_top1", pytest.approx(0.85))
    assert found.values == {1: 0.8, 2: 0.9, 3: 0.85}


def test_other_classes_are_refused_before_videos_are_read(tiny_run, tmp_path, monkeypatch):
    for label in ("a", "b"):
        (tmp_path / label).mkdir()
        (tmp_path / label / "x.mp4").write_bytes(b"never opened")
    monkeypatch.setattr(tables, "scan_videos", None)
    with pytest.raises(InputError, match="has the classes a, b, the checkpoint was trained on"):
        open_run(tiny_run).evaluate({"data.root": str(tmp_path)})


def test_rare_classes_are_weighed_and_counted_alike(tmp_path, capsys):
    """move_left has 8 videos, the other seven classes have 2 each."""
    motion.render(tmp_path / "videos", num_groups=8)
    for path in (tmp_path / "videos").rglob("*.*"):
        number = sorted(path.parent.iterdir()).index(path) if path.parent.name != "move_left" else 0
        if number > 1:
            path.unlink()
    values = {"data.test_fraction": 0.5, "data.balance": 1.0, "train.logit_adjustment": 1.0, "data.clips_per_visit": 1}
    weights = [1, 1, 1, 1, 1, 1, 1, 2.5]
    run = train_tiny(tmp_path / "videos", tmp_path / "a", {**values, "train.class_weights": weights})
    assert run.config.train.class_weights == weights
    metrics = json.loads((tmp_path / "a" / "metrics.json").read_text())
    assert metrics["leading_score"] == "video_mean_class_accuracy"
    assert metrics["uneven_classes"].endswith("4 of move_left")
    low, high = metrics["intervals_95"]["video_mean_class_accuracy"]
    assert low <= metrics["video_mean_class_accuracy"] <= high
    assert "counts the classes alike: there are" in run.report().read_text()
    assert main(["evaluate", str(tmp_path / "a")]) == 0
    out = capsys.readouterr().out
    assert out.index("video_mean_class_accuracy") < out.index("video_top1")
    with pytest.raises(InputError, match=r"train\.class_weights: 2 weights for 8 classes"):
        train_tiny(tmp_path / "videos", tmp_path / "b", {**values, "train.class_weights": [1, 2]})
    values = parser().parse(["--train.class_weights", "[1, 2.5]", "--data.balance", "0.5"])[1]
    assert values == {"train.class_weights": [1, 2.5], "data.balance": 0.5}
    for word, kind in (("balanced", "balanced"), ("null", None)):
        assert parser().parse(["--train.class_weights", word])[1] == {"train.class_weights": kind}
    with pytest.raises(InputError, match=r"class_weights must be one of balanced, effective or a list of numbers"):
        load_config({"train.class_weights": "even"})


def test_a_configuration_that_leaves_things_open_leaves_them_as_they_were_trained(tiny_run, tmp_path):
    values = {"data.mean": [0.9, 0.9, 0.9], "data.std": [0.1, 0.1, 0.1], "train.loss": "bce"}
    run = train_tiny(tiny_run.parent / "videos", tmp_path / "run", values)
    open_ones = {"data.mean": None, "data.std": None, "train.loss": None}
    assert run.evaluate(open_ones).scores == run.evaluate().scores


def test_scores_are_kept_where_too_many_files_are_bad(tiny_run, tmp_path):
    shutil.copytree(tiny_run.parent / "videos", tmp_path / "videos")
    (tmp_path / "videos/move_down/broken_g009.avi").write_bytes(b"broken")
    run = train_tiny(tmp_path / "videos", tmp_path / "run")
    with pytest.raises(InputError, match="max_bad_videos"):
        run.evaluate({"data.max_bad_videos": 0})
    assert (run.folder / "evaluation.json").is_file()
    assert (run.folder / "evaluation/skipped.csv").is_file()


def test_what_concerns_training_alone_does_not_act(runs, caplog):
    expected = open_run(runs / "a").evaluate().scores
    values = {"model.weights": "nowhere.pth", "train.loss": "bce", "train.ema": 0.9}
    assert open_run(runs / "a").evaluate(values).scores == expected
    assert "model.weights, train.ema, train.loss: of training, and not used" in caplog.text
    report = json.loads((runs / "a/evaluation.json").read_text())
    assert report["config"]["model"]["weights"] is None
    assert report["config"]["train"]["ema"] is None
    with pytest.raises(InputError, match=r"data\.annotations is not what the run was trained with"):
        open_run(runs / "a").evaluate({"data.annotations": "other.csv"})


@pytest.mark.parametrize(
    "content", ['{"loss": 1', '{"loss": 1.0, "epoch": 3}', "[]", '{"leading_score": "video_top1"}']
)
def test_scores_of_another_file_are_refused(runs, tmp_path, content):
    shutil.copytree(runs / "a", tmp_path / "a")
    (tmp_path / "a/metrics.json").write_text(content)
    run = open_run(tmp_path / "a")
    assert repr(run).endswith("8 classes)")
    for use in (lambda: run.metrics, run.report, lambda: run.save_pretrained(tmp_path / "saved")):
        with pytest.raises(InputError, match=r"metrics\.json: not the scores of a training of this version"):
            use()


@pytest.mark.parametrize("values", [{"train.schedule": "plateau"}, {"train.early_stopping": 3}])
def test_training_that_follows_the_test_data_says_so(runs, tmp_path, caplog, values):
    train_tiny(runs / "videos", tmp_path / "run", {"train.epochs": 1, **values})
    assert f"no val split: {next(iter(values))}" in caplog.text
    assert "follows the test data" in caplog.text


def test_another_recipe_and_data_that_moved_are_said(runs, tmp_path):
    with pytest.raises(InputError, match=r"data\.recipe is not what the run was trained with"):
        open_run(runs / "a").evaluate({"data.recipe": "ucf101"})
    (runs / "videos").rename(runs / "away")
    try:
        with pytest.raises(InputError, match=r"videos: no such folder: where the data lies now is data\.root"):
            open_run(runs / "a").evaluate()
        moved = open_run(runs / "a").evaluate({"data.root": str(runs / "away")})
        assert moved.scores["video_top1"] >= 0
    finally:
        (runs / "away").rename(runs / "videos")


@pytest.fixture
def official(runs, tmp_path):
    """Videos as HMDB51 has them, and lists of its second split elsewhere."""
    lists = tmp_path / "lists"
    lists.mkdir()
    paths = sorted((runs / "videos").rglob("*.mp4"))
    for label, videos in (("wave", paths[:4]), ("walk", paths[4:8])):
        (tmp_path / "hmdb51" / label).mkdir(parents=True)
        for i, path in enumerate(videos):
            shutil.copy(path, tmp_path / "hmdb51" / label / f"{i}.mp4")
        marks = [f"{i}.mp4 {1 if i < 2 else 2}\n" for i in range(4)]
        (lists / f"{label}_test_split2.txt").write_text("".join(marks))
    return tmp_path


def test_a_run_on_a_numbered_split_keeps_it(official, runs):
    values = {"data.recipe": "hmdb51", "data.split": 2, "data.annotations": str(official / "lists")}
    run = train_tiny(official / "hmdb51", official / "run", values)
    held_out = {f"{label}/{i}.mp4" for label in ("walk", "wave") for i in (2, 3)}
    assert set(run.evaluate().evaluation.predictions.names) == held_out
    (official / "hmdb51/lists").mkdir()
    for label in ("wave", "walk"):  # other lists that are found below the root
        marks = "".join(f"{i}.mp4 {2 if i < 2 else 1}\n" for i in range(4))
        (official / f"hmdb51/lists/{label}_test_split2.txt").write_text(marks)
    assert set(run.evaluate().evaluation.predictions.names) == held_out
    values = {"data.root": str(runs / "videos"), "data.recipe": "folder", "data.annotations": None}
    with pytest.raises(InputError, match="the checkpoint was trained on"):  # and no word of split 2
        run.evaluate(values)


def test_a_pushed_run_is_not_scored_on_what_it_was_trained_on(runs, tmp_path, monkeypatch, caplog):
    """Its folder has neither its table nor its groups, without which others are held out."""
    own = open_run(runs / "a")
    pushed = own.save_pretrained(tmp_path / "pushed")
    monkeypatch.chdir(runs)
    with pytest.raises(InputError, match=r"did not hold out \d+ videos? that would be scored"):
        open_run(pushed).evaluate()
    result = open_run(pushed).evaluate({"data.groups": str(runs / "groups.csv")})
    assert result.scores["video_top1"] == pytest.approx(own.metrics["video_top1"])
    assert open_run(pushed).evaluate({"data.allow_leaks": True}).scores
    motion.render(tmp_path / "others", num_groups=2, seed=5)
    with caplog.at_level("WARNING", "cbam3d"):
        open_run(pushed).evaluate({"data.root": str(tmp_path / "others")})
    assert "is not known, as it has no manifest.csv" in caplog.text


def test_keys_of_videos_are_refused_for_images(tmp_path):
    for key, value in (("groups", "g.csv"), ("annotations", "a.csv"), ("split", 2), ("reach", 0.5)):
        with pytest.raises(InputError, match=f"data.{key} has no effect on images"):
            open_dataset({"config": "cifar10", "data.root": str(tmp_path), f"data.{key}": value})
