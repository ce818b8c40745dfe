"""Training from real files, as a library: run folders, bad files, splits, resuming."""

import csv
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from cbam3d import create_model, files, load_run, open_run, prepare, train
from cbam3d.config import Config, load_config
from cbam3d.config.keys import keys
from cbam3d.data import motion
from cbam3d.errors import InputError, Stopped
from cbam3d.files import load_tensors, used_by_one
from cbam3d.runs import dry_run, hardware
from cbam3d.runs.training import new_folder
from tests.tiny import TINY, as_arguments, train_tiny

TWO = {"train.epochs": 2, "data.test_fraction": 0.2, "augment.crop_scale": None}


@pytest.fixture(scope="session")
def rendered(tmp_path_factory) -> Path:
    """32 videos of the demo in class folders."""
    root = tmp_path_factory.mktemp("rendered")
    motion.render(root, num_groups=4)
    return root


@pytest.fixture
def videos(rendered, tmp_path, monkeypatch) -> Path:
    """A copy that a test may damage; the working directory is empty."""
    shutil.copytree(rendered, tmp_path / "videos")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path / "videos"


def short(root: Path, run_dir: str | None = "run", **values):
    """A run of two epochs; `section__key` is a key."""
    given = {key.replace("__", "."): value for key, value in values.items()}
    return train_tiny(root, run_dir, {**TWO, **given})


def read_json(name: str) -> dict:
    return json.loads(Path(name).read_text())


def test_training_leaves_a_run_folder_that_evaluates_to_the_same_scores(videos):
    run = short(videos, data__test_fraction=0.5)
    names = {path.relative_to("run").as_posix() for path in Path("run").rglob("*") if path.is_file()}
    assert {
        "config.yaml",
        "manifest.csv",
        "metrics.csv",
        "metrics.json",
        "curves.png",
        "confusion.png",
        "checkpoints/last.ckpt",
        "checkpoints/best.ckpt",
    } <= names
    assert any("events.out.tfevents" in name for name in names)
    assert not any(".part" in name for name in names)
    metrics = read_json("run/metrics.json")
    assert run.metrics == metrics
    assert (metrics["num_videos"], metrics["num_clips"], metrics["num_skipped"]) == (16, 32, 0)
    assert {"clip_top1", "clip_top5", "video_top1", "video_top5", "best_video_top1", "best_epoch"} <= set(metrics)
    with open("run/metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["video_top1"]) == metrics["video_top1"]
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert [f"{section}.{key}" for section, entries in written.items() for key in entries] == [k.name for k in keys()]
    assert written["run"]["dir"] is None  # so that run/config.yaml can be given as it is

    again = open_run("run").evaluate()
    for name in ("loss", "clip_top1", "clip_top5", "video_top1", "video_top5"):
        assert again.scores[name] == pytest.approx(metrics[name], rel=1e-6)
    best = open_run("run").evaluate({"eval.num_clips": 5}, checkpoint="best")
    assert best.counts["num_clips"] == read_json("run/evaluation.json")["num_clips"] == 80


def test_the_resolved_configuration_repeats_the_run(videos):
    first = short(videos, "first", run__seed=5, data__num_workers=2)
    second = train({"config": "first/config.yaml", "data.num_workers": 0}, run_dir="second")
    assert first.metrics == second.metrics


def test_with_three_splits_val_chooses_and_test_is_scored(videos, tmp_path):
    root = tmp_path / "three"
    for i, split in enumerate(("train", "train", "val", "test"), 1):
        for path in videos.rglob(f"*_g00{i}.*"):
            if split != "test" or path.parent.name != "zoom_in":  # 8 to validate, 7 to test
                (root / split / path.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / split / path.parent.name)
    run = short(root)
    assert run.metrics["num_videos"] == 7
    with open("run/metrics.csv", newline="") as file:
        validated = [float(row["video_top1"]) for row in csv.DictReader(file)]
    assert run.metrics["best_video_top1"] == max(validated)
    assert all(value * 8 == int(value * 8) for value in validated)
    assert run.evaluate().scores["video_top1"] == run.metrics["video_top1"]
    assert run.evaluate(split="val").counts["num_videos"] == 8


def test_a_run_is_never_overwritten_and_can_be_resumed(videos, caplog, monkeypatch):
    caplog.set_level("INFO", "cbam3d")
    assert [str(short(videos, None).folder) for _ in range(2)] == ["runs/folder", "runs/folder-2"]
    before = read_json("runs/folder-2/metrics.json")
    with pytest.raises(InputError, match="a run that has begun cannot change it"):
        train("folder", resume=True)  # not with another configuration
    train({**TINY, **TWO, "data.root": str(videos)}, resume=True)  # the latest, which is finished: it is scored again
    assert read_json("runs/folder-2/metrics.json") == before
    assert "resuming after epoch 2" in caplog.text
    with pytest.raises(InputError, match="runs/folder holds a run: resume it, or give another"):
        short(videos, "runs/folder")
    monkeypatch.setattr(files, "_PATIENCE", 0.5)
    with used_by_one(Path("runs/folder")), pytest.raises(InputError, match="another process is training there"):
        train(run_dir="runs/folder", resume=True)
    train(run_dir="runs/folder", resume=True)  # with the run's own configuration
    assert read_json("runs/folder/metrics.json") == before
    with pytest.raises(InputError, match="elsewhere: nothing to resume"):
        train(run_dir="elsewhere", resume=True)


def test_a_corrupt_video_is_named_counted_and_skipped_up_to_the_limit(videos, caplog):
    (videos / "zoom_in" / "zoom_in_g001.avi").write_bytes(b"garbage" * 100)
    (videos / "zoom_in" / "empty.mp4").write_bytes(b"")
    run = short(videos)
    assert "skipped zoom_in/empty.mp4: empty file" in caplog.messages
    assert "skipped zoom_in/zoom_in_g001.avi: unreadable" in caplog.text
    assert run.metrics["num_skipped"] == 2
    assert len(Path("run/skipped.csv").read_text().splitlines()) == 3
    with pytest.raises(InputError, match=r"2 files cannot be used, data\.max_bad_videos is 1"):
        short(videos, "strict", data__max_bad_videos=1)
    strict = short(videos, "strict")  # the folder is not blocked by the start that failed
    assert strict.evaluate().num_skipped == 2


def test_a_video_that_goes_bad_after_preparation_is_skipped_in_training(videos, caplog):
    prepare("folder", videos)
    for path in (videos / "zoom_in").iterdir():
        path.write_bytes(b"")
    assert short(videos).metrics["num_skipped"] == 4
    assert "skipped zoom_in/zoom_in_g001" in caplog.text
    for key in ("groups", "annotations"):
        with pytest.raises(InputError, match=rf"data\.{key} has no effect beside"):
            short(videos, f"beside {key}", **{f"data__{key}": str(videos)})


@pytest.mark.slow
def test_two_processes_survive_bad_files_in_one_of_them(videos):
    """A share of a batch that is empty in one process must not leave the other waiting."""
    prepare("folder", videos)
    bad = sorted(videos.rglob("*.mp4"))[:5]
    for path in bad:
        path.write_bytes(b"")
    script = Path(__file__).parents[2] / "train.py"
    values = {**TINY, "data.root": str(videos), "run.devices": 2, "train.batch_size": 2}
    arguments = [*as_arguments(values), "--run.dir", "run"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert read_json("run/metrics.json")["num_skipped"] == len(bad)
    assert len(Path("run/skipped.csv").read_text().splitlines()) == 1 + len(bad)
    assert len(list(Path("run/tensorboard").iterdir())) == 1


def test_groups_are_kept_apart_and_a_run_keeps_to_them(videos):
    paths = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.*"))
    lines = [f"{path},{path.split('/')[0]},{path.split('_g')[1][:3]}" for path in paths]
    Path("groups.csv").write_text("\n".join(["path,label,group", *lines]))
    run = short(videos, data__groups="groups.csv", data__test_fraction=0.5)
    with open("run/manifest.csv", newline="") as file:
        splits = {(row["group"], row["split"]) for row in csv.DictReader(file)}
    assert sorted(split for _, split in splits) == ["test", "test", "train", "train"]
    Path("groups.csv").write_text("nonsense")  # the run has a table of its own
    assert run.evaluate().counts["num_videos"] == 16
    train(run_dir="run", resume=True)
    with pytest.raises(InputError, match=r"groups\.csv: no group for 32 videos"):
        short(videos, "other", data__groups="groups.csv")


def test_the_demo_is_not_rendered_into_a_folder_of_somebody_else(videos):
    (videos / "walk").mkdir()
    before = sorted(videos.rglob("*"))
    with pytest.raises(InputError, match="holds walk: motion is not rendered there"):
        short(videos, config="motion")
    assert sorted(videos.rglob("*")) == before


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda root: shutil.rmtree(root), "no such folder"),
        (lambda root: [shutil.rmtree(path) for path in root.iterdir()], "no video in this folder"),
        (
            lambda root: [shutil.rmtree(path) for path in root.iterdir() if path.name != "zoom_in"],
            "at least 2 classes are needed, found zoom_in",
        ),
        (
            lambda root: [path.write_bytes(b"x") for path in root.rglob("*.*")],
            "at least 2 classes are needed, found none (of 32 unusable files the first is move_down/",
        ),
    ],
)
def test_a_folder_without_data_is_refused_in_one_line(videos, damage, message):
    damage(videos)
    with pytest.raises(InputError) as raised:
        short(videos, None)
    assert str(raised.value).startswith(f"{videos}: {message}")
    assert "\n" not in str(raised.value)
    assert not Path("runs").exists()


def test_ucf101s_layout_trains_and_scores(videos, tmp_path, caplog):
    root = tmp_path / "UCF-101"
    for label, source in (("Archery", "move_left"), ("YoYo", "zoom_in"), ("Punch", "move_up")):
        (root / label).mkdir(parents=True)
        for i, path in enumerate(sorted((videos / source).iterdir())):
            shutil.copy(path, root / label / f"v_{label}_g{(1, 2, 8, 9)[i]:02d}_c01.avi")
    metrics = short(root, config="ucf101").metrics
    assert "nothing of 98 of 101 classes" in caplog.text
    assert (metrics["num_videos"], metrics["num_classes"]) == (6, 101)
    with open("run/manifest.csv", newline="") as file:
        splits = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert splits["YoYo/v_YoYo_g02_c01.avi"] == "test"
    assert splits["YoYo/v_YoYo_g08_c01.avi"] == "train"


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_on_a_gpu(videos, precision):
    run = short(videos, run__accelerator="cuda", run__precision=precision, data__num_workers=2)
    assert run.evaluate().scores["video_top1"] == run.metrics["video_top1"]


FAST = {
    "model.name": "fast_cnn",
    "model.options": {"channels": [8, 8, 8]},
    "train.ema": 0.5,
    "train.epochs": 10,
    "train.learning_rate": 0.2,
}


@pytest.mark.parametrize(("config", "more"), [("cifar10", {}), ("cifar10_fast", FAST)])
def test_images_go_through_the_same_loop(tmp_path, config, more):
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for label, base in (("dark", 0), ("light", 160)):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(base, base + 96, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    values = {"config": config, "data.recipe": "image_folder", "train.epochs": 4, "train.learning_rate": 0.02}
    run = train_tiny(tmp_path / "pictures", tmp_path / "run", {"augment.crop_scale": None, **values, **more})
    assert run.metrics["top1"] > 0.9
    assert run.metrics["num_images"] == 12
    assert "clip_top1" not in run.metrics
    assert run.evaluate().scores["top1"] == run.metrics["top1"]


def test_evaluation_refuses_what_does_not_fit(videos):
    run = short(videos)
    shutil.copytree(videos, "fewer")
    shutil.rmtree("fewer/zoom_in")
    with pytest.raises(InputError, match="fewer has the classes move_down, "):
        run.evaluate({"data.root": "fewer"})
    run.evaluate({"data.max_bad_videos": 0})
    shutil.rmtree(videos / "zoom_in")  # what the run held out is gone, and that is said
    with pytest.raises(InputError, match=r"files cannot be used, data\.max_bad_videos is 0"):
        run.evaluate({"data.max_bad_videos": 0})
    with pytest.raises(InputError, match=r"last\.ckpt does not fit the network") as raised:
        run.evaluate({"model.options": {"width": 16}})
    assert "\n" not in str(raised.value)
    Path("run/checkpoints/last.ckpt").write_bytes(b"cut")
    with pytest.raises(InputError, match="not a readable checkpoint"):
        run.evaluate()
    with pytest.raises(InputError, match="no run in this folder"):
        open_run("nowhere")


def test_a_flip_that_changes_labels_is_refused_before_anything_is_rendered(tmp_path):
    for key, message in (
        ("augment.flip", "augment.flip: in motion a mirror image has another label"),
        ("eval.flip", "eval.flip: in motion a mirror image has another label"),
        ("data.on_device", "data.on_device holds images, motion has videos"),
    ):
        with pytest.raises(InputError) as raised:
            train({"data.root": str(tmp_path / "motion"), key: True}, run_dir=tmp_path / "run")
        assert str(raised.value) == message
        assert not list(tmp_path.iterdir())


def test_a_folder_too_small_for_a_held_out_part_says_so(tmp_path):
    motion.render(tmp_path / "videos", num_groups=2)
    with pytest.raises(InputError) as raised:
        short(tmp_path / "videos", tmp_path / "run")
    assert str(raised.value).endswith("videos: no usable held-out video: the 16 usable ones are for training")


def test_one_held_out_group_gives_a_score_and_no_interval(videos):
    rows = [(path.relative_to(videos).as_posix(), f"g{path.stem[-1]}") for path in videos.rglob("*.*")]
    groups = [(path, "one" if group == "g1" else "two") for path, group in rows]
    Path("groups.csv").write_text("\n".join(["path,group", *(f"{path},{group}" for path, group in groups)]))
    run = short(videos, data__groups="groups.csv", data__test_fraction=0.4)
    assert run.metrics["intervals_95"] == {}
    assert "without an interval" in run.report().read_text()


def test_lists_that_a_run_was_trained_with_give_way_to_another_table(videos, tmp_path):
    listed = [f"{p.relative_to(videos).as_posix()},{p.parent.name}" for p in sorted(videos.rglob("*.*"))]
    Path("lists").mkdir()
    Path("lists/annotations.csv").write_text("\n".join(["path,label", *listed]))
    run = short(videos, data__annotations="lists")
    shutil.copytree(videos, tmp_path / "again")
    prepare("folder", tmp_path / "again", annotations="lists")
    run.evaluate({"data.root": str(tmp_path / "again")})
    with pytest.raises(InputError, match=r"data\.annotations has no effect beside"):
        short(tmp_path / "again", "other", data__annotations="lists")


@pytest.mark.parametrize(("key", "name"), [("model.attention", "cbma"), ("model.name", "torchvision/r3d_19")])
def test_a_misspelt_name_is_told_before_any_video_is_read(tmp_path, key, name):
    with pytest.raises(InputError, match=r"model: unknown .* did you mean"):
        train_tiny(tmp_path / "nowhere", tmp_path / "run", {key: name})
    assert not (tmp_path / "run").exists()


def test_values_on_resume_are_those_of_the_runs_own_configuration(videos):
    short(videos, data__short_side=80, data__size=80, train__epochs=1)
    run = train({"data.size": 72, "train.epochs": 2}, run_dir="run", resume=True)  # the demo's short_side is 64
    assert (run.config.data.size, run.config.data.short_side) == (72, 80)


def test_a_value_that_a_resumed_run_cannot_change_is_refused(videos):
    short(videos, train__optimizer="adamw", train__weight_decay=0.05)
    for key, then, now in (("batch_size", "8", 4), ("weight_decay", "0.05", 0.5), ("optimizer", "adamw", "sgd")):
        with pytest.raises(InputError) as raised:
            train({f"train.{key}": now}, run_dir="run", resume=True)
        assert str(raised.value) == f"train.{key} was {then}, is {now}: a run that has begun cannot change it"


def test_a_run_goes_on_without_the_weights_that_it_began_with(videos, tmp_path):
    weights = tmp_path / "weights.pt"
    torch.save(create_model("resnet10", 5, width=8).state_dict(), weights)
    short(videos, model__weights=str(weights), train__new_rate_factor=10.0, train__epochs=1)
    weights.unlink()
    train({"train.epochs": 2}, run_dir="run", resume=True)
    groups = load_tensors(Path("run/checkpoints/last.ckpt"), "checkpoint")["optimizer"]["param_groups"]
    assert len(groups) == 4  # old and new, with and without weight decay


def test_time_that_is_over_stops_the_run_without_an_error(videos):
    with pytest.raises(Stopped, match=r"train\.max_hours is over\) in epoch 1 after batch 0") as stopped:
        short(videos, train__max_hours=1e-7)
    assert stopped.value.status == 0


def test_a_dry_run_says_what_a_run_will_take_and_leaves_nothing(rendered, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    rows = dry_run({**TINY, "data.root": str(rendered), "train.epochs": 4, "model.options.stem_pool": True})
    assert rows["input of a step"] == "8 x 3 x 4 x 32 x 32"
    assert (rows["steps an epoch"], rows["steps in all"]) == ("2", "8")  # 16 of 32 videos train
    model = create_model("resnet10", 8, attention="cbam", width=8, stem_pool=True)
    assert rows["parameters"].startswith(f"{sum(p.numel() for p in model.parameters()):,}")
    assert list(tmp_path.iterdir()) == []


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    meeting = threading.Barrier(8)

    def begin(_):
        meeting.wait()
        return new_folder(Config(), "demo")

    with ThreadPoolExecutor(8) as pool:
        folders = list(pool.map(begin, range(8)))
    assert sorted(folders) == sorted(Path("runs") / name for name in ("demo", *(f"demo-{i}" for i in range(2, 9))))
    assert all((folder / "checkpoints").is_dir() for folder in folders)


@pytest.mark.draws
def test_names_that_are_hard_to_draw_lose_no_score(videos, caplog):
    for folder, name in zip(sorted(videos.iterdir())[:3], ("$x_$", "caf\udce9", "come|upper"), strict=True):
        folder.rename(folder.with_name(name))
    run = short(videos, train__epochs=1)
    assert "the label 'come|upper' is taken for one class, not for several" in caplog.text
    assert run.metrics["num_classes"] == 8
    assert Path("run/confusion.png").stat().st_size > 1000
    run.report(mistakes=1)


def test_a_video_that_was_replaced_is_refused_at_resume(videos, caplog):
    run = short(videos, train__epochs=1)
    (first, second) = sorted(videos.rglob("*.avi"))[:2]
    time_ns = first.stat().st_mtime_ns
    os.utime(first, ns=(time_ns + 10**9, time_ns + 10**9))
    train({"train.epochs": 2}, run_dir="run", resume=True)
    assert "1 video of" in caplog.text
    assert f"since the run began, though of the same size; the first is {first.relative_to(videos)}" in caplog.text
    first.write_bytes(second.read_bytes() + b"more")
    for again in (lambda: train({"train.epochs": 2}, run_dir="run", resume=True), run.evaluate):
        with pytest.raises(InputError, match=r"1 video of .*, the first is .*, changed since the run began"):
            again()


def test_videos_that_came_after_the_table_are_named(videos, caplog):
    prepare("folder", videos)
    label = sorted(item for item in videos.iterdir() if item.is_dir())[0]
    time.sleep(0.02)
    shutil.copy(next(label.iterdir()), label / "later.avi")
    shutil.copytree(label, videos / "new class")
    dry_run({**TINY, "data.root": str(videos)})
    count = 1 + len(list(label.iterdir()))
    text = f"{count} videos not in that table, the first is {label.name}/later.avi: remove the table to read them"
    assert text in caplog.messages


def test_frozen_layers_keep_the_attention_that_is_new(videos, caplog):
    caplog.set_level("INFO", "cbam3d")
    values = {"train__epochs": 1, "train__ema": 0.9}
    first = short(videos, "first", model__attention="none", **values)
    short(videos, "second", model__weights=str(first.folder), train__freeze=["conv1.*", "layer*"], **values)
    assert "are trained (" in caplog.text
    assert "new ones)" in caplog.text
    before, after = (load_tensors(Path(f, "checkpoints/last.ckpt"), "checkpoint") for f in ("first", "second"))
    for name, value in after["model"].items():
        if name.startswith("layer") and "attention" not in name:
            assert torch.equal(value, before["average"][f"module.{name}"]), name  # what the scores were of
    learnt = [
        name
        for name, value in after["model"].items()
        if name.endswith("attention.channel.mlp.2.weight") and value.any()
    ]
    assert len(learnt) == 4  # each starts at 0


@pytest.mark.slow
def test_bfloat16_trains_on_a_cpu(videos):
    network = {"model__name": "torchvision/r3d_18", "model__options": {}}
    run = short(videos, run__precision="bf16-mixed", data__num_frames=16, train__epochs=1, **network)
    assert np.isfinite(run.metrics["loss"])
    weights = load_tensors(Path("run/checkpoints/last.ckpt"), "checkpoint")["model"]
    assert all(value.isfinite().all() for value in weights.values())


def test_what_the_hardware_decides_is_recorded_and_stays(videos, monkeypatch):
    auto = {"run__precision": "auto", "run__channels_last": None}
    with monkeypatch.context() as patched:
        patched.setattr(hardware, "computes_bfloat16", lambda device: True)
        run = short(videos, data__num_frames=16, train__epochs=1, **auto)
    assert (run.config.run.precision, run.config.run.channels_last) == ("bf16-mixed", True)
    assert load_config("run/config.yaml").run == run.config.run.model_copy(update={"dir": None})
    again = open_run("run").evaluate()  # elsewhere
    assert again.scores["loss"] == pytest.approx(run.metrics["loss"], rel=1e-6)


def test_momentum_belongs_to_sgd(videos):
    with pytest.raises(InputError, match=r"train\.momentum is of sgd"):
        short(videos, train__optimizer="adamw", train__momentum=0.5)


BROKEN = {
    "classes": 5,
    "config": "x",
    "kind": "film",
    "model": None,
    "state": [],
    "average": 3,
}


@pytest.mark.parametrize("key", [*BROKEN, "a section"])
def test_a_checkpoint_that_is_none_is_one_line(tiny_run, tmp_path, key):
    saved = load_tensors(tiny_run / "checkpoints" / "last.ckpt", "checkpoint")
    saved |= {"config": {"data": 5}} if key == "a section" else {key: BROKEN[key]}
    folder = tmp_path / "run"
    shutil.copytree(tiny_run, folder)
    torch.save(saved, folder / "checkpoints" / "last.ckpt")
    for use in (open_run, load_run, lambda path: train(run_dir=path, resume=True)):
        with pytest.raises(InputError, match=r"last\.ckpt: not a checkpoint of cbam3d train$"):
            use(folder)


def test_scores_of_fewer_epochs_do_not_stay_beside_the_weights_of_more(videos):
    run = short(videos, train__epochs=1)
    with pytest.raises(Stopped):
        train({"train.epochs": 3, "train.max_hours": 1e-7}, run_dir="run", resume=True)
    with pytest.raises(InputError, match=r"training has not ended \(metrics\.json is missing\)"):
        run.save_pretrained("pushed")
    train({"train.epochs": 2, "train.max_hours": None}, run_dir="run", resume=True)
    assert run.metrics["epoch"] == 2


def test_a_class_that_was_renamed_is_refused_at_resume(picture_run, tmp_path):
    shutil.copytree(picture_run.parent / "pictures", tmp_path / "pictures")
    shutil.copytree(picture_run, tmp_path / "run")
    for split in ("train", "test"):  # behind the other one now
        (tmp_path / "pictures" / split / "dark").rename(tmp_path / "pictures" / split / "very dark")
    with pytest.raises(InputError, match=r"very dark"):
        train({"data.root": str(tmp_path / "pictures"), "train.epochs": 2}, run_dir=tmp_path / "run", resume=True)


def test_the_latest_run_is_resumed_whatever_its_number(videos):
    for _ in range(3):
        short(videos, None, train__epochs=1)
    shutil.rmtree("runs/folder-2")
    short(videos, None, train__epochs=1)
    run = train({**TINY, **TWO, "data.root": str(videos), "train.epochs": 1}, resume=True)
    assert str(run.folder) == "runs/folder-2"


def test_what_a_killed_process_left_unfinished_is_removed(videos):
    short(videos, train__epochs=1)
    left = Path("run/checkpoints/.0123456789ab.part.ckpt")
    left.touch()
    train({"train.epochs": 1}, run_dir="run", resume=True)
    assert not left.exists()


def test_a_dry_run_refuses_what_a_probe_would(videos):
    probe = {**TINY, "data.root": str(videos), "train.cached_views": 2}
    with pytest.raises(InputError, match=r"train\.cached_views needs a model\.head"):
        dry_run(probe)
    with pytest.raises(InputError, match=r"is trained, so its features change: freeze it"):
        dry_run({**probe, "model.head": "mean", "model.attention": "none"})


def test_a_tilde_is_the_home(videos, monkeypatch):
    monkeypatch.setenv("HOME", str(videos.parent))
    run = train({**TINY, "data.root": f"~/{videos.name}", "run.dir": "~/at-home"})
    assert run.folder == videos.parent / "at-home"
    assert not Path("~").exists()


def test_images_that_came_later_do_not_move_others_into_the_test(picture_run, tmp_path):
    for label in ("dark", "light"):
        for split in ("train", "test"):
            for path in (picture_run.parent / "pictures" / split / label).iterdir():
                (tmp_path / "all" / label).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, tmp_path / "all" / label / f"{split}_{path.name}")
    config = yaml.safe_load((picture_run / "config.yaml").read_text())
    config["data"] |= {"root": str(tmp_path / "all"), "test_fraction": 0.5}
    run = train({"config": "cifar10", **config}, run_dir=tmp_path / "run")
    assert run.evaluate().scores["top1"] == run.metrics["top1"]
    for i in range(12):
        shutil.copy(path, tmp_path / "all" / "light" / f"new_{i}.png")
    for again in (run.evaluate, lambda: train({"train.epochs": 2}, run_dir=tmp_path / "run", resume=True)):
        with pytest.raises(InputError, match="images came or went since the run began"):
            again()


def test_a_head_of_as_many_other_classes_is_new(tmp_path, caplog):
    for name, labels in (("one", ("cat", "dog")), ("two", ("xray", "yak"))):
        motion.render(tmp_path / "all", num_groups=1)
        videos = sorted((tmp_path / "all").rglob("*.mp4"))
        for i, path in enumerate(videos):
            target = tmp_path / name / labels[i % 2] / f"{i}.mp4"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    first = train_tiny(tmp_path / "one", tmp_path / "first", {"augment.flip": False})
    values = {"model.weights": str(first.folder), "train.learning_rate": 0.0, "augment.flip": False}
    same = train_tiny(tmp_path / "one", tmp_path / "same", values)
    with caplog.at_level("INFO", "cbam3d"):
        other = train_tiny(tmp_path / "two", tmp_path / "other", values)
    assert "2 skipped (fc.weight: of other classes), 2 new" in caplog.text
    heads = [run.model().fc.weight for run in (first, same, other)]
    assert torch.equal(heads[0], heads[1])
    assert not torch.equal(heads[0], heads[2])
    assert torch.equal(first.model().conv1.weight, other.model().conv1.weight)
