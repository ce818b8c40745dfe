"""The commands as a user gives them, on small real files."""

import csv
import json
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

import cbam3d
from cbam3d.cli import COMMANDS, main
from cbam3d.data import motion
from cbam3d.config.keys import keys
from tests.tiny import TINY


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


def train(root: Path, *arguments: str, config: str = "folder") -> int:
    usual = [*TINY, "--train.epochs", "2", "--data.test_fraction", "0.2", "--augment.crop_scale", "null"]
    return main(["train", "--config", config, "--data.root", str(root), *usual, *arguments])


def test_training_leaves_a_run_folder_that_evaluates_to_the_same_scores(videos, capsys):
    assert train(videos, "--data.test_fraction", "0.5", "--run.dir", "run") == 0
    run = Path("run")
    names = {path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file()}
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
    assert not any(name.endswith(".part") for name in names)
    metrics = json.loads((run / "metrics.json").read_text())
    assert (metrics["num_videos"], metrics["num_clips"], metrics["num_skipped"]) == (16, 32, 0)
    assert {"clip_top1", "clip_top5", "video_top1", "video_top5", "best_video_top1", "best_epoch"} <= set(metrics)
    with open(run / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert float(rows[-1]["video_top1"]) == metrics["video_top1"]

    capsys.readouterr()
    assert main(["evaluate", "run"]) == 0
    again = json.loads((run / "evaluation.json").read_text())
    for name in ("loss", "clip_top1", "clip_top5", "video_top1", "video_top5", "num_videos"):
        assert again[name] == pytest.approx(metrics[name], rel=1e-6)
    assert "video_top1" in capsys.readouterr().out

    assert main(["evaluate", "run", "--eval.num_clips", "5", "--checkpoint", "best"]) == 0
    assert json.loads((run / "evaluation.json").read_text())["num_clips"] == 80


def test_the_resolved_configuration_repeats_the_run(videos):
    assert train(videos, "--run.dir", "first", "--run.seed", "5", "--data.num_workers", "2") == 0
    again = ["--config", "first/config.yaml", "--run.dir", "second", "--data.num_workers", "0"]
    assert main(["train", *again]) == 0
    first, second = (json.loads(Path(f"{name}/metrics.json").read_text()) for name in ("first", "second"))
    assert first == second


def test_with_three_splits_val_chooses_and_test_is_scored(videos, tmp_path):
    root = tmp_path / "three"
    for i, split in enumerate(("train", "train", "val", "test"), 1):
        for path in videos.rglob(f"*_g00{i}.*"):
            if split != "test" or path.parent.name != "zoom_in":  # 8 to validate, 7 to test
                (root / split / path.parent.name).mkdir(parents=True, exist_ok=True)
                shutil.copy(path, root / split / path.parent.name)
    assert train(root, "--run.dir", "run") == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["num_videos"] == 7
    with open("run/metrics.csv", newline="") as file:
        validated = [float(row["video_top1"]) for row in csv.DictReader(file)]
    assert metrics["best_video_top1"] == max(validated)
    assert all(value * 8 == int(value * 8) for value in validated)
    assert main(["evaluate", "run"]) == 0
    assert json.loads(Path("run/evaluation.json").read_text())["video_top1"] == metrics["video_top1"]


def test_a_run_is_never_overwritten_and_can_be_resumed(videos, capsys):
    assert train(videos) == 0
    assert train(videos) == 0
    assert sorted(path.name for path in Path("runs").iterdir()) == ["folder", "folder-2"]
    before = json.loads(Path("runs/folder-2/metrics.json").read_text())
    assert main(["train", "--config", "folder", "--resume"]) == 2  # not with another configuration
    assert "a run that has begun cannot change it" in capsys.readouterr().err
    assert train(videos, "--resume") == 0  # the latest, which is finished: it is scored again
    assert json.loads(Path("runs/folder-2/metrics.json").read_text()) == before
    assert "resuming after epoch 2" in capsys.readouterr().out
    assert train(videos, "--run.dir", "runs/folder") == 2
    assert "runs/folder holds a run: --resume continues it" in capsys.readouterr().err
    assert main(["train", "--run.dir", "runs/folder", "--resume"]) == 0  # with the run's own configuration
    assert json.loads(Path("runs/folder/metrics.json").read_text()) == before
    assert train(videos, "--run.dir", "elsewhere", "--resume") == 2
    assert "elsewhere: nothing to resume" in capsys.readouterr().err


def test_a_corrupt_video_is_named_counted_and_skipped_up_to_the_limit(videos, capsys):
    (videos / "zoom_in" / "zoom_in_g001.avi").write_bytes(b"garbage" * 100)
    (videos / "zoom_in" / "empty.mp4").write_bytes(b"")
    assert train(videos, "--run.dir", "run") == 0
    printed = capsys.readouterr().out
    assert "skipped zoom_in/empty.mp4: empty file" in printed
    assert "skipped zoom_in/zoom_in_g001.avi: unreadable" in printed
    assert json.loads(Path("run/metrics.json").read_text())["num_skipped"] == 2
    assert len(Path("run/skipped.csv").read_text().splitlines()) == 3

    assert train(videos, "--run.dir", "strict", "--data.max_bad_videos", "1") == 2
    assert "2 files cannot be used, data.max_bad_videos is 1" in capsys.readouterr().err
    assert train(videos, "--run.dir", "strict") == 0  # the folder is not blocked by the start that failed
    assert main(["evaluate", "strict"]) == 0
    assert json.loads(Path("strict/evaluation.json").read_text())["num_skipped"] == 2


def test_a_video_that_goes_bad_after_preparation_is_skipped_in_training(videos, capsys):
    assert main(["prepare", "folder", "--root", str(videos)]) == 0
    assert "32 videos, 32 usable" in capsys.readouterr().out
    for path in (videos / "zoom_in").iterdir():
        path.write_bytes(b"")
    assert train(videos, "--run.dir", "run") == 0
    assert "skipped zoom_in/zoom_in_g001" in capsys.readouterr().out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["num_skipped"] == 4
    assert main(["prepare", "folder", "--root", str(videos)]) == 2
    assert "manifest.csv exists" in capsys.readouterr().err
    assert train(videos, "--data.groups", "groups.csv") == 2
    assert "data.groups has no effect beside" in capsys.readouterr().err
    assert train(videos, "--data.annotations", str(videos)) == 2
    assert "data.annotations has no effect beside" in capsys.readouterr().err


@pytest.mark.slow
def test_two_processes_survive_bad_files_in_one_of_them(videos):
    """A share of a batch that is empty in one process must not leave the other waiting."""
    assert main(["prepare", "folder", "--root", str(videos)]) == 0
    bad = sorted(videos.rglob("*.mp4"))[:5]
    for path in bad:
        path.write_bytes(b"")
    script = Path(__file__).parents[1] / "train.py"
    arguments = ["--config", "folder", "--data.root", str(videos), *TINY, "--run.dir", "run", "--run.devices", "2"]
    arguments += ["--train.batch_size", "2", "--train.epochs", "1"]
    done = subprocess.run([sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["num_skipped"] == len(bad)
    assert len(Path("run/skipped.csv").read_text().splitlines()) == 1 + len(bad)
    assert len(list(Path("run/tensorboard").iterdir())) == 1


def test_groups_are_kept_apart_and_a_run_keeps_to_them(videos, capsys):
    paths = sorted(path.relative_to(videos).as_posix() for path in videos.rglob("*.*"))
    lines = [f"{path},{path.split('/')[0]},{path.split('_g')[1][:3]}" for path in paths]
    Path("groups.csv").write_text("\n".join(["path,label,group", *lines]))
    arguments = ["--data.groups", "groups.csv", "--data.test_fraction", "0.5"]
    assert train(videos, "--run.dir", "run", *arguments) == 0
    with open("run/manifest.csv", newline="") as file:
        splits = {(row["group"], row["split"]) for row in csv.DictReader(file)}
    assert sorted(split for _, split in splits) == ["test", "test", "train", "train"]
    assert main(["evaluate", "run"]) == 0
    assert json.loads(Path("run/evaluation.json").read_text())["num_videos"] == 16
    assert main(["train", "--run.dir", "run", "--resume"]) == 0
    Path("groups.csv").write_text("nonsense")
    assert train(videos, "--data.groups", "groups.csv") == 2
    assert "groups.csv: no group for 32 videos" in capsys.readouterr().err


def test_the_demo_is_not_rendered_into_a_folder_of_somebody_else(videos, capsys):
    (videos / "walk").mkdir()
    before = sorted(videos.rglob("*"))
    assert train(videos, config="motion") == 2
    assert "holds walk: the demo's videos are not rendered there" in capsys.readouterr().err
    assert sorted(videos.rglob("*")) == before


@pytest.mark.slow
def test_workers_need_no_fork(videos, monkeypatch):
    """Where processes are spawned (macOS, Windows, Python 3.14), the data set must be picklable."""
    import torch.utils.data

    def spawned(*arguments, original=torch.utils.data.DataLoader, **options):
        return original(*arguments, **options, multiprocessing_context="spawn")

    monkeypatch.setattr("cbam3d.data.loader.DataLoader", spawned)
    assert train(videos, "--run.dir", "run", "--data.num_workers", "1", "--train.epochs", "1") == 0


@pytest.mark.parametrize(
    ("prepare", "message"),
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
def test_a_folder_without_data_is_refused_in_one_line(videos, capsys, prepare, message):
    prepare(videos)
    assert train(videos) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"cbam3d: {videos}: {message}")
    assert error.count("\n") == 1
    assert not Path("runs").exists()


def test_ucf101s_layout_trains_and_scores(videos, tmp_path, capsys):
    root = tmp_path / "UCF-101"
    for label, source in (("Archery", "move_left"), ("YoYo", "zoom_in"), ("Punch", "move_up")):
        (root / label).mkdir(parents=True)
        for i, path in enumerate(sorted((videos / source).iterdir())):
            shutil.copy(path, root / label / f"v_{label}_g{(1, 2, 8, 9)[i]:02d}_c01.avi")
    assert train(root, "--run.dir", "run", config="ucf101") == 0
    assert "nothing of 98 of 101 classes" in capsys.readouterr().out
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert (metrics["num_videos"], metrics["num_classes"]) == (6, 101)
    with open("run/manifest.csv", newline="") as file:
        splits = {row["path"]: row["split"] for row in csv.DictReader(file)}
    assert splits["YoYo/v_YoYo_g02_c01.avi"] == "test"
    assert splits["YoYo/v_YoYo_g08_c01.avi"] == "train"


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "16-mixed"])
def test_training_on_a_gpu(videos, precision):
    arguments = ["--run.accelerator", "cuda", "--run.precision", precision, "--data.num_workers", "2"]
    assert train(videos, "--run.dir", "run", *arguments) == 0
    assert main(["evaluate", "run"]) == 0
    metrics, again = (json.loads(Path(f"run/{name}.json").read_text()) for name in ("metrics", "evaluation"))
    assert again["video_top1"] == metrics["video_top1"]


FAST = shlex.split(
    "--model.name fast_cnn --model.options '{channels: [8, 8, 8]}' --train.ema 0.5 --train.epochs 10 "
    "--train.learning_rate 0.2"
)


@pytest.mark.parametrize(("config", "more"), [("cifar10", []), ("cifar10_fast", FAST)])
def test_images_go_through_the_same_loop(tmp_path, monkeypatch, config, more):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for split, count in (("train", 12), ("test", 6)):
        for label, base in (("dark", 0), ("light", 160)):
            folder = tmp_path / "pictures" / split / label
            folder.mkdir(parents=True)
            for i in range(count):
                pixels = rng.integers(base, base + 96, (32, 32, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{i}.png")
    arguments = ["--data.recipe", "image_folder", "--train.epochs", "4", "--train.learning_rate", "0.02"]
    assert train(tmp_path / "pictures", "--run.dir", "run", *arguments, *more, config=config) == 0
    metrics = json.loads(Path("run/metrics.json").read_text())
    assert metrics["top1"] > 0.9
    assert metrics["num_images"] == 12
    assert "clip_top1" not in metrics
    assert main(["evaluate", "run"]) == 0
    again = json.loads(Path("run/evaluation.json").read_text())
    assert again["top1"] == metrics["top1"]


def test_evaluate_refuses_what_does_not_fit(videos, capsys):
    assert train(videos, "--run.dir", "run") == 0
    shutil.copytree(videos, "fewer")
    shutil.rmtree("fewer/zoom_in")
    assert main(["evaluate", "run", "--data.root", "fewer"]) == 2
    assert "fewer has the classes move_down, " in capsys.readouterr().err
    assert main(["evaluate", "run", "--data.root", str(videos), "--data.max_bad_videos", "0"]) == 0
    shutil.rmtree(videos / "zoom_in")  # what the run held out is gone, and that is said
    assert main(["evaluate", "run", "--data.max_bad_videos", "0"]) == 2
    assert "files cannot be used, data.max_bad_videos is 0" in capsys.readouterr().err
    assert main(["evaluate", "run", "--model.options", "{width: 16}"]) == 2
    error = capsys.readouterr().err
    assert "last.ckpt does not fit the network" in error
    assert error.count("\n") == 1
    assert main(["evaluate", "run", "--data.test_fraction", "0.5"]) == 2
    assert "data.test_fraction is not what the run was trained with" in capsys.readouterr().err
    Path("run/checkpoints/last.ckpt").write_bytes(b"cut")
    assert main(["evaluate", "run"]) == 2
    assert "not a readable checkpoint" in capsys.readouterr().err
    assert main(["evaluate", "nowhere"]) == 2
    assert "no run in this folder" in capsys.readouterr().err


def test_a_flip_that_changes_labels_is_refused_before_anything_is_rendered(tmp_path, capsys):
    assert train(tmp_path / "motion", "--augment.flip", "true", config="motion") == 2
    assert capsys.readouterr().err == "cbam3d: augment.flip: in motion a mirror image has another label\n"
    assert not (tmp_path / "motion").exists()
    assert train(tmp_path / "motion", "--eval.flip", "true", config="motion") == 2
    assert capsys.readouterr().err == "cbam3d: eval.flip: in motion a mirror image has another label\n"
    assert train(tmp_path / "motion", "--data.on_device", "true", config="motion") == 2
    assert capsys.readouterr().err == "cbam3d: data.on_device holds images, motion has videos\n"


def test_the_catalogue_is_a_table(capsys):
    assert main(["list", "attention", "--size", "14,14", "--channels", "32"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "tam" not in lines  # there is none for images
    assert lines["se"].split() == ["se", "arxiv.org/abs/1709.01507", "2D", "3D", "162", "128", "no"]
    assert lines["gct"].split()[-1] == "yes"


def test_a_folder_too_small_for_a_held_out_part_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    motion.render(tmp_path / "videos", num_groups=2)
    assert main(["train", "--config", "folder", "--data.root", "videos", *TINY, "--data.test_fraction", "0.2"]) == 2
    message = "cbam3d: videos: no usable held-out video: the 16 usable ones are for training\n"
    assert capsys.readouterr().err == message


def test_one_held_out_group_gives_a_score_and_no_interval(videos, capsys):
    rows = [(path.relative_to(videos).as_posix(), f"g{path.stem[-1]}") for path in videos.rglob("*.*")]
    groups = [(path, "one" if group == "g1" else "two") for path, group in rows]
    Path("groups.csv").write_text("\n".join(["path,group", *(f"{path},{group}" for path, group in groups)]))
    assert train(videos, "--data.groups", "groups.csv", "--data.test_fraction", "0.4", "--run.dir", "run") == 0
    assert "no intervals: 1 group, and at least 5 are needed" in capsys.readouterr().out
    assert json.loads(Path("run/metrics.json").read_text())["intervals_95"] == {}
    assert main(["report", "run"]) == 0
    assert "without an interval" in Path("run/report.html").read_text()
    assert main(["evaluate", "run", "run"]) == 0


def test_lists_that_a_run_was_trained_with_give_way_to_another_table(videos, tmp_path, capsys):
    listed = [f"{p.relative_to(videos).as_posix()},{p.parent.name}" for p in sorted(videos.rglob("*.*"))]
    Path("lists").mkdir()
    Path("lists/annotations.csv").write_text("\n".join(["path,label", *listed]))
    assert train(videos, "--data.annotations", "lists", "--run.dir", "run") == 0
    shutil.copytree(videos, tmp_path / "again")
    assert main(["prepare", "folder", "--root", str(tmp_path / "again"), "--annotations", "lists"]) == 0
    assert main(["evaluate", "run", "--data.root", str(tmp_path / "again")]) == 0
    capsys.readouterr()
    assert train(tmp_path / "again", "--data.annotations", "lists") == 2
    assert "data.annotations has no effect beside" in capsys.readouterr().err


@pytest.mark.parametrize("option", [("--model.attention", "cbma"), ("--model.name", "torchvision/r3d_19")])
def test_a_misspelt_name_is_told_before_any_video_is_read(tmp_path, capsys, option):
    assert train(tmp_path / "nowhere", *option, "--run.dir", str(tmp_path / "run")) == 2
    assert "cbam3d: model: unknown" in (error := capsys.readouterr().err)
    assert "did you mean" in error
    assert not (tmp_path / "run").exists()


def test_unknown_commands_and_names(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("resnet18", "cbam", "motion", "ucf101"))
    assert main([]) == 0
    usage = capsys.readouterr().out
    assert "usage: cbam3d COMMAND" in usage
    assert {line.split()[0] for line in usage.splitlines() if line.startswith("  ")} == set(COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cbam3d {cbam3d.__version__}\n"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_fits_a_terminal_of_80_columns(command, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    with pytest.raises(SystemExit) as stop:
        main([command, "--help"])
    assert stop.value.code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"usage: cbam3d {command} ")
    assert max(map(len, lines)) <= 80


def test_train_py_exits_with_the_status_and_one_line(tmp_path):
    script = Path(__file__).parents[1] / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), "--train.epoch", "3"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "cbam3d: command line: unknown key 'train.epoch': did you mean 'train.epochs'?\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_config_yaml_holds_every_key(videos):
    assert train(videos, "--run.dir", "run") == 0
    written = yaml.safe_load(Path("run/config.yaml").read_text())
    assert [f"{section}.{key}" for section, entries in written.items() for key in entries] == [k.name for k in keys()]
    assert written["run"]["dir"] is None  # so that --config run/config.yaml can be given as it is
