"""The command line: which command is meant, and what is shown where."""

import errno
import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import cbam3d
from cbam3d.cli import main
from cbam3d.cli.main import COMMANDS
from tests.tiny import TINY, as_arguments


def test_training_shows_what_it_does_and_where_it_is(tiny_run, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tiny_run.parent / "videos/zoom_in/empty.mp4").touch()
    values = {**TINY, "data.root": str(tiny_run.parent / "videos")}
    config = values.pop("config")
    try:
        assert main(["train", "--config", config, *as_arguments(values), "--data.stride", "1"]) == 0
        again = ["train", "--resume", "--config", config, *as_arguments(values), "--data.stride", "2"]
        assert main(again) == 0
    finally:
        (tiny_run.parent / "videos/zoom_in/empty.mp4").unlink()
    shown = capsys.readouterr()
    assert shown.err == ""
    assert "reading every video of" in shown.out
    assert "skipped zoom_in/empty.mp4: empty file" in shown.out
    assert "epoch   1/1" in shown.out
    assert "resuming after epoch 1" in shown.out
    assert "changed since: data.stride was 1, is 2" in shown.out
    assert "no intervals" not in shown.out
    assert shown.out.count("everything is in runs/folder\n") == 2


def test_a_dry_run_is_a_table(tiny_run, capsys):
    values = {**TINY, "data.root": str(tiny_run.parent / "videos")}
    config = values.pop("config")
    assert main(["train", "--config", config, "--dry-run", *as_arguments(values)]) == 0
    rows = [line.split("│")[1:3] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert ["input of a step", "8 x 3 x 4 x 32 x 32"] in [[cell.strip() for cell in row] for row in rows]
    assert main(["train", "--resume", "--dry-run", "--run.dir", str(tiny_run)]) == 2
    assert "--dry-run tries a run that has not begun" in capsys.readouterr().err


@pytest.mark.slow
def test_a_network_in_the_working_directory_trains_and_is_trusted_by_name(tiny_run, tmp_path, capsys):
    """By the installed script, whose sys.path begins with its own folder."""
    script = Path(sys.executable).with_name("cbam3d")
    if not script.exists():
        pytest.skip("no cbam3d beside this Python")
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n\n\nclass Net(nn.Sequential):\n    def __init__(self, num_classes):\n"
        "        super().__init__(nn.AdaptiveAvgPool3d(2), nn.Flatten(), nn.Linear(24, num_classes))\n"
    )
    values = {**TINY, "data.root": str(tiny_run.parent / "videos"), "model.name": "nets:Net", "model.options": {}}
    config = values.pop("config")
    train = ["train", "--config", config, *as_arguments(values), "--model.attention", "none", "--run.dir", "run"]
    predict = ["predict", "run", str(next((tiny_run.parent / "videos").rglob("*.avi"))), "--json"]
    for arguments, status, said in (
        (train, 0, "everything is in run"),
        (predict, 2, "its network is the class nets:Net, which is code"),
        ([*predict, "--trust-code"], 0, '"classes": [["'),
    ):
        done = subprocess.run([script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=100)
        assert done.returncode == status, done.stderr
        assert said in done.stdout + done.stderr


def test_what_is_wrong_with_a_run_is_one_line(tmp_path, capsys, monkeypatch):
    assert main(["train", "--data.recipe", "folder", "--data.root", str(tmp_path / "nowhere")]) == 2
    assert capsys.readouterr().err == f"cbam3d: {tmp_path / 'nowhere'}: no such folder\n"
    assert main(["report", str(tmp_path)]) == 2
    assert capsys.readouterr().err == f"cbam3d: {tmp_path}: no run in this folder (config.yaml is missing)\n"
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs/probe").mkdir(parents=True)
    (tmp_path / "runs/probe/config.yaml").touch()
    for name, hint in (("runs/prob", ": did you mean runs/probe?"), ("mine", "; there are runs/probe")):
        assert main(["report", name]) == 2
        assert capsys.readouterr().err.endswith(f"(config.yaml is missing){hint}\n")


def test_a_run_is_exported_and_reported(tiny_run, tmp_path, capsys):
    assert main(["export", str(tiny_run), "--out", str(tmp_path / "net.pt2")]) == 0
    assert f"{tmp_path / 'net.pt2'}: logits within" in capsys.readouterr().out
    assert main(["report", str(tiny_run), "--out", str(tmp_path / "page.html"), "--mistakes", "0"]) == 0
    assert "MiB, all in one file" in capsys.readouterr().out
    assert main(["export", str(tiny_run), "--format", "tflite"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_the_catalogue_is_a_table(capsys):
    assert main(["list", "attention", "--size", "14,14", "--channels", "32"]) == 0
    lines = {line.split()[0]: line for line in capsys.readouterr().out.splitlines() if line.strip()}
    assert "tam" not in lines  # there is none for images
    assert lines["se"].split() == ["se", "arxiv.org/abs/1709.01507", "2D", "3D", "162", "128", "no"]
    assert lines["gct"].split()[-1] == "yes"


def test_unknown_commands_and_names(capsys):
    assert main(["trian"]) == 2
    assert "did you mean 'train'" in capsys.readouterr().err
    assert main(["list"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("resnet18", "cbam", "motion", "ucf101"))
    for kind, name in (
        ("models", "torchvision/s3d"),
        ("heads", "gltr"),
        ("configurations", "probe"),
        ("datasets", "ssv2"),
    ):
        assert main(["list", kind]) == 0
        assert name in capsys.readouterr().out.splitlines()
    assert main([]) == 0
    usage = capsys.readouterr().out
    assert "usage: cbam3d COMMAND" in usage
    assert {line.split()[0] for line in usage.splitlines() if line.startswith("  ")} == set(COMMANDS)
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"cbam3d {cbam3d.__version__}\n"


OPTIONS = {
    "train": "--config --resume --dry-run",
    "evaluate": "runs --trust-code --config --checkpoint --views --split",
    "compare": "config --attention --head --variants --seeds --out --jobs --engine",
    "explain": "run --trust-code paths --checkpoint --out --class --blocks --layer --device",
    "report": "run --trust-code --out --mistakes",
    "predict": "run --trust-code paths --checkpoint --top --window --step --json "
    "--events --threshold --keep --smooth --min-length --merge --out --annotate --device",
    "features": "run --trust-code --config --out --layer --per --views --checkpoint",
    "prepare": "recipe --root --groups --annotations --split --allow-leaks --allow-outside --workers --timeout-seconds "
    "--short-side --gop --copies --shards --engine",
    "push": "run --trust-code repository --private --license --citation --save",
    "serve": "runs --trust-code --host --port --max-mib --max-seconds --jobs --keep-minutes --device",
    "export": "run --trust-code --format --checkpoint --out",
    "list": "what --channels --size",
    "completion": "shell",
}


def test_commands_and_their_options_change_on_purpose_only():
    """Scripts of users name them; the keys of a configuration are held by tests/config/test_schema.py."""
    assert list(OPTIONS) == COMMANDS
    for name, options in OPTIONS.items():
        parser = import_module(f"cbam3d.cli.{name}").parser()
        own = [action for action in parser._actions if action.dest != "help" and not hasattr(action, "key")]
        assert [(action.option_strings or [action.dest])[0] for action in own] == options.split()
        assert parser.takes_keys == (name in ("train", "evaluate", "compare", "features"))


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
    script = Path(__file__).parents[2] / "train.py"
    done = subprocess.run(
        [sys.executable, str(script), "--train.epoch", "3"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert done.stderr == "cbam3d: command line: unknown key 'train.epoch': did you mean 'train.epochs'?\n"
    assert done.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_nothing_are_refused(capsys):
    for arguments, message in (
        (["list", "models", "--channels", "8"], "--channels and --size go with attention"),
        (["features", "--config", "probe", "--checkpoint", "best", "--out", "x.parquet"], "--checkpoint is of a run"),
    ):
        assert main(arguments) == 2
        assert message in capsys.readouterr().err


def test_a_full_disk_is_one_line(monkeypatch, capsys):
    def fill(arguments):
        with open("/dev/full", "w") as file:
            file.write("much")
            file.flush()

    monkeypatch.setattr("cbam3d.cli.list.run", fill)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "cbam3d: a file cannot be written: No space left on device\n"


def test_a_reader_that_has_ended_is_no_error(tiny_run, tmp_path):
    videos = sorted((tiny_run.parent / "videos").glob("*/*.mp4"))[:3]
    command = [sys.executable, "-m", "cbam3d", "predict", str(tiny_run), *map(str, videos), "--json"]
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "wb") as nobody:
        process = subprocess.run(command, stdout=nobody, stderr=subprocess.PIPE, text=True)
    assert (process.returncode, process.stderr) == (128 + signal.SIGPIPE, "")


def test_no_permission_is_said_in_one_line(monkeypatch, capsys):
    def refuse(arguments):
        raise PermissionError(errno.EACCES, "Permission denied", "run/evaluation")

    monkeypatch.setattr("cbam3d.cli.list.run", refuse)
    assert main(["list"]) == 2
    assert capsys.readouterr().err == "cbam3d: run/evaluation: permission denied\n"
