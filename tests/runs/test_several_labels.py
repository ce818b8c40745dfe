"""Runs on parts of videos, with one label each or several: trained, scored, found as events, reported, compared."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml
from sklearn.metrics import average_precision_score

from cbam3d import compare, load_run, open_dataset, open_run
from cbam3d.cli import main
from cbam3d.data import motion_events
from cbam3d.engine.events import EventSettings
from cbam3d.engine.several import best_thresholds
from cbam3d.errors import InputError
from cbam3d.runs.dry_run import dry_run
from cbam3d.runs.event_evaluation import truth_of
from cbam3d.runs.windows import predict_windows
from tests.conftest import rows_of
from tests.tiny import TINY, train_tiny

VALUES = {"data.stride": 1, "data.background": 0.2, "train.class_weights": "balanced"}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    """A few long videos, of one motion at a time and of two."""
    root = tmp_path_factory.mktemp("events")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(motion_events, "NUM_VIDEOS", {"train": 4, "val": 1, "test": 2})
        patch.setattr(motion_events, "NUM_EVENTS", 6)
        for at_once in (1, 2):
            motion_events.render(root / str(at_once), at_once)
    return root


@pytest.fixture(scope="module")
def runs(root):
    """The runs of both."""
    mixed = {"augment.mixup": 0.2, "train.label_smoothing": 0.1}
    return {
        at_once: train_tiny(root / str(at_once), root / f"run{at_once}", VALUES | (mixed if at_once == 2 else {}))
        for at_once in (1, 2)
    }


def test_a_run_of_parts_has_background_and_items_with_times(runs):
    run = runs[1]
    assert "background" in run.classes
    assert len(run.classes) == 9
    metrics = run.metrics
    assert {"video_top1", "video_mean_class_accuracy"} <= metrics.keys()
    rows = rows_of(run.folder / "predictions.csv")
    assert all("#t=" in row["path"] for row in rows)
    assert len({row["path"] for row in rows}) == len(rows) == metrics["num_videos"]
    assert metrics["num_groups"] == 2  # the videos
    assert "background" in {row["label"] for row in rows}


def test_several_labels_have_map_and_thresholds_of_validation(runs):
    run = runs[2]
    assert run.config.train.loss == "bce"
    assert yaml.safe_load((run.folder / "config.yaml").read_text())["train"]["loss"] == "bce"
    metrics = run.metrics
    assert not {"video_top1", "clip_top1"} & metrics.keys()
    rows = rows_of(run.folder / "predictions.csv")
    own = np.array([[name in row["labels"].split("|") for name in run.classes] for row in rows])
    found = np.array([[float(row[f"p({name})"]) for name in run.classes] for row in rows])
    held = own.any(0)
    assert metrics["video_map"] == pytest.approx(average_precision_score(own[:, held], found[:, held]), abs=1e-3)
    assert (own.sum(1) == 0).any()  # background
    thresholds = metrics["thresholds"]
    assert list(thresholds) == run.classes
    assert len(set(thresholds.values())) > 1
    assert metrics["leading_score"] == "video_map"
    classes = {row["class"]: row for row in rows_of(run.folder / "classes.csv")}
    assert float(classes["zoom_in"]["threshold"]) == pytest.approx(thresholds["zoom_in"], abs=1e-4)
    assert not (run.folder / "confusion.csv").exists()
    assert (run.folder / "curves.png").stat().st_size


def test_thresholds_are_those_of_the_network_that_they_were_found_for(runs, tmp_path):
    shutil.copytree(runs[2].folder, tmp_path / "run")
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    known = list(metrics["thresholds"].values())
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics | {"epoch": metrics["epoch"] + 1}))
    assert load_run(tmp_path / "run").thresholds.tolist() == known
    found = open_run(tmp_path / "run").evaluate(checkpoint="best", split="val").evaluation.predictions
    own = load_run(tmp_path / "run", "best").thresholds
    np.testing.assert_allclose(own, best_thresholds(found.probabilities, found.labels), atol=1e-4)
    for name in ("last", "best"):  # of an earlier version, which did not keep them
        path = tmp_path / "run" / "checkpoints" / f"{name}.ckpt"
        saved = torch.load(path, weights_only=True)
        del saved["thresholds"]
        torch.save(saved, path)
    assert set(load_run(tmp_path / "run").thresholds.tolist()) == {0.5}
    (tmp_path / "run" / "metrics.json").write_text(json.dumps(metrics))
    assert load_run(tmp_path / "run").thresholds.tolist() == known
    with pytest.raises(InputError, match=r"last\.ckpt: has one checkpoint, best is of the folder of a run"):
        load_run(tmp_path / "run" / "checkpoints" / "last.ckpt", "best")


def test_evaluation_repeats_the_score_and_adds_that_of_events(runs):
    for at_once, name in ((1, "video_top1"), (2, "video_map")):
        run = runs[at_once]
        again = run.evaluate()
        assert again.scores[name] == pytest.approx(run.metrics[name], abs=1e-6)
        facts = json.loads((run.folder / "evaluation.json").read_text())
        assert 0 <= facts["segment_map_0.7"] <= facts["segment_map_0.3"] <= 1
        assert facts["segment_map"] == pytest.approx(np.mean([facts[f"segment_map_0.{i}"] for i in range(3, 8)]))
        events = rows_of(run.folder / "evaluation" / "events.csv")
        assert {row["path"].split("/")[0] for row in events} <= {"test"}
        assert "segment_map" not in run.evaluate({"eval.events": False}).scores
        assert not (run.folder / "evaluation" / "events.csv").exists()


def test_events_come_from_files_and_hold_where_the_network_says(runs, root):
    predictor = load_run(runs[1].folder)
    video = next((root / "1" / "test").iterdir())
    settings = EventSettings(threshold=0.01)
    events = list(predictor.events(video, settings=settings))
    assert events
    assert "background" not in {event.label for event in events}
    assert all(0 <= event.start_seconds < event.end_seconds for event in events)
    windows = list(predict_windows(predictor, video, 9, window=4 / 25, step=4 / 25))
    coarse = list(predictor.events(video, window=4 / 25, step=4 / 25, settings=EventSettings(threshold=0.2, keep=1)))
    for event in coarse:
        inside = [w for w in windows if event.start_seconds - 1e-6 <= w.start_seconds < event.end_seconds - 1e-6]
        assert all(dict(w.classes)[event.label] >= 0.2 for w in inside)
        assert event.score == pytest.approx(np.mean([dict(w.classes)[event.label] for w in inside]), abs=1e-5)


def test_what_holds_is_said_of_files(runs, root):
    predictor = load_run(runs[2].folder)
    video = next((root / "2" / "test").iterdir())
    probabilities = predictor.probabilities(video)
    expected = [
        name for name, p, t in zip(predictor.classes, probabilities, predictor.thresholds, strict=True) if p >= t
    ]
    assert predictor.holding(probabilities) == expected
    logits = torch.tensor([[0.0] * 8])
    assert predictor.activate(logits).tolist() == [[0.5] * 8]
    (prediction,) = predict_windows(predictor, video, 3, None, None)
    assert prediction.labels == expected


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["vtt", "json", "csv"])
def test_the_command_writes_events(runs, root, tmp_path, kind):
    word = [sys.executable, "-m", "cbam3d", "predict", str(runs[1].folder), str(root / "1" / "test")]
    options = ["--events", kind, "--threshold", "0.1", "--out", str(tmp_path / "out")]
    done = subprocess.run([*word, *options], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    files = sorted((tmp_path / "out").iterdir())
    assert [path.name for path in files] == [f"000.{kind}", f"001.{kind}"]
    text = files[0].read_text()
    if kind == "vtt":
        assert text.startswith("WEBVTT\n\n00:00:")
    elif kind == "csv":
        assert text.startswith("path,label,start,end,score\n")
        assert [float(row["start"]) for row in rows_of(files[0])] == sorted(
            float(r["start"]) for r in rows_of(files[0])
        )
    else:
        assert json.loads(text.splitlines()[0])["label"] in runs[1].classes


def test_subtitles_may_lie_beside_their_videos(runs, root, tmp_path, capsys):
    shutil.copytree(root / "1" / "test", tmp_path / "films")
    before = {path.name for path in (tmp_path / "films").iterdir()}
    films = str(tmp_path / "films")
    assert main(["predict", str(runs[1].folder), films, "--events", "vtt", "--out", films]) == 0
    after = {path.name for path in (tmp_path / "films").iterdir()}
    assert after - before == {"000.vtt", "001.vtt"}
    assert (tmp_path / "films" / "000.vtt").read_text().startswith("WEBVTT\n")
    for words, reason in (
        (["--merge", "1"], "--merge goes with --events"),
        (["--events", "csv", "--keep", "0"], "--keep must be above 0 and at most 1"),
        (["--events", "csv", "--smooth", "-1"], "--smooth must be at least 0"),
        (["--events", "vtt"], "subtitles are of one video"),
        (["--events", "csv", "--json"], "goes with neither"),
    ):
        assert main(["predict", str(runs[1].folder), films, *words]) == 2
        assert reason in capsys.readouterr().err


def test_report_export_and_explanation_follow(runs, root, tmp_path):
    page = runs[2].report(tmp_path / "report.html").read_text()
    assert "video_map" in page
    assert "average precision" in page
    assert "move_left|" in page or "|zoom_in" in page
    path, _ = runs[2].export(out=tmp_path / "m.pt2")
    facts = json.loads(path.with_suffix(".json").read_text())
    assert facts["output"]["probabilities"] == "sigmoid"
    assert facts["thresholds"] == list(runs[2].metrics["thresholds"].values())
    found = runs[2].explain(next((root / "2" / "test").iterdir()))
    assert sum(probability for _, probability in found.best) != pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_a_comparison_is_of_map(root, tmp_path):
    values = {**TINY, **VALUES, "data.root": str(root / "2")}
    found = compare(values, ["none", "se"], seeds=2, out=tmp_path / "out")
    assert found.score == "video_map"
    assert all(0 <= score <= 1 for row in found.rows for score in row.scores)
    assert "too few groups" in (tmp_path / "out" / "comparison.md").read_text()


def test_items_of_a_split_have_all_their_labels(root):
    train, _, test = open_dataset({**TINY, **VALUES, "data.root": str(root / "2")})
    _, label = train[0]
    assert label.dtype == torch.bool
    assert label.shape == (8,)
    batch = next(test.batches())
    assert batch.targets.dtype == torch.float32
    assert batch.labels.shape == (len(batch.names), 8)


def test_a_run_for_one_label_is_not_scored_on_several(root, tmp_path):
    run = train_tiny(root / "1", tmp_path / "run", VALUES | {"data.background": 0})
    with pytest.raises(InputError, match="the run was trained for one"):
        run.evaluate({"data.root": str(root / "2")})


def test_what_cannot_be_searched_for_events_is_scored_all_the_same(runs, monkeypatch, caplog):
    monkeypatch.setattr("cbam3d.runs.evaluation.why_no_segments", lambda items: "it is in shards")
    assert "segment_map" not in runs[1].evaluate().scores
    assert "events are not scored: it is in shards" in caplog.text
    with pytest.raises(InputError, match=r"eval\.events: it is in shards"):
        runs[1].evaluate({"eval.events": True})


def test_what_it_takes_is_said_before(root):
    said = dry_run({**TINY, **VALUES, "data.root": str(root / "2"), "train.class_weights": None})
    assert float(said["loss of the first step"]) == pytest.approx(8 * np.log(2), rel=0.6)


@pytest.mark.slow
def test_other_videos_may_be_scored(runs, root, tmp_path):
    shutil.copytree(root / "1", tmp_path / "other")
    table = tmp_path / "other" / "annotations.csv"
    table.write_text(table.read_text().replace(",val\n", ",test\n"))
    (tmp_path / "other" / "manifest.csv").unlink(missing_ok=True)
    found = runs[1].evaluate({"data.root": str(tmp_path / "other")})
    assert found.counts["num_videos"] > runs[1].metrics["num_videos"]
    assert len(set(found.groups)) == 3


def test_one_label_may_be_decided_apart(root, tmp_path):
    run = train_tiny(root / "1", tmp_path / "run", {**VALUES, "data.background": 0, "train.loss": "bce"})
    assert run.metrics["video_top1"] >= 0
    assert load_run(run.folder).apart
    with pytest.raises(InputError, match=r"those of .* have several"):
        train_tiny(root / "2", tmp_path / "other", {**VALUES, "train.loss": "cross_entropy"})
    with pytest.raises(InputError, match=r"is for train\.loss cross_entropy"):
        train_tiny(root / "2", tmp_path / "third", {**VALUES, "train.logit_adjustment": 1})


def test_true_events_of_a_label_that_overlap_are_one(runs):
    table = open_dataset({**TINY, **VALUES, "data.root": str(runs[2].config.data.root)}).test.loader.data.manifest
    truth = truth_of(table.select(table.parts))
    assert sum(map(len, truth.values())) == 2 * 6 * 2
