"""Mechanisms compared: the words that ask for them, real runs, and what is said of them."""

import csv
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from cbam3d.cli import main
from cbam3d.commands.compare import parse_variants
from cbam3d.commands.cost import multiply_adds
from cbam3d.commands.devices import environments
from cbam3d.config import Config, Run
from cbam3d.errors import InputError
from cbam3d.models import create_model
from tests.tiny import TINY


def test_words_may_have_options_in_brackets():
    none, se, cbam = parse_variants("none, se(reduction=8),cbam(gates=[channel, spatial], init=identity)")
    assert (none.name, none.options, none.slug) == ("none", {}, "none")
    assert (se.name, se.options) == ("se", {"reduction": 8})
    assert cbam.options == {"gates": ["channel", "spatial"], "init": "identity"}
    assert cbam.slug == "cbam-gates-channel-spatial-init-identity"


def test_a_mechanism_takes_those_options_of_the_recipe_that_it_has():
    base = Config()
    base.model.attention_options.update(init="identity", gates=["channel"])
    none, se, cbam = (v.config(base).model for v in parse_variants("none,se,cbam(gates=[spatial])"))
    assert (none.attention, none.attention_options) == ("none", {})
    assert (se.attention, se.attention_options) == ("se", {"init": "identity"})
    assert cbam.attention_options == {"init": "identity", "gates": ["spatial"]}
    base.model.attention_options.clear()


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("none,simamm", "did you mean 'simam'"),
        ("none", "at least two"),
        ("se,se", "each once"),
        ("none,se(reductoin=8)", "did you mean 'reduction'"),
        ("none,se(8)", "expected option=value"),
        ("none,se(reduction=8", "expected a mechanism"),
        ("none,se(reduction={)", "cannot read the value"),
        ("none,none(init=identity)", "option of none 'init'"),
    ],
)
def test_what_is_no_mechanism_is_one_line(text, reason):
    with pytest.raises(InputError, match=reason) as raised:
        parse_variants(text)
    assert "\n" not in str(raised.value)


def test_each_training_has_its_place(monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 8)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    (alone,) = environments(None, Run())
    assert "OMP_NUM_THREADS" not in alone or alone["OMP_NUM_THREADS"] != "8"
    assert [place["OMP_NUM_THREADS"] for place in environments(2, Run())] == ["4", "4"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(None, Run())] == ["2", "5"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(3, Run())] == ["2", "5", "2"]
    assert len(environments(None, Run(accelerator="cpu"))) == 1


def test_multiply_adds_are_those_counted_by_hand():
    layers = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, padding=1, bias=False), torch.nn.Flatten())
    layers.append(torch.nn.Linear(8 * 2 * 4 * 4, 5))
    assert multiply_adds(layers, torch.zeros(1, 3, 2, 4, 4)) == 8 * 3 * 27 * 32 + 8 * 32 * 5


@pytest.fixture(scope="module")
def compared(tiny_run, tmp_path_factory) -> tuple[Path, list[str]]:
    """The folder of a comparison, and the command that made it."""
    out = tmp_path_factory.mktemp("compare") / "out"
    data = ["--data.root", str(tiny_run.parent / "videos"), "--run.accelerator", "cpu"]
    command = ["compare", "folder", "--attention", "none,se", "--out", str(out), *data, *TINY, "--seeds", "1"]
    assert main(command) == 0
    return out, command


def test_real_runs_end_in_one_table(compared):
    out, _ = compared
    with open(out / "comparison.csv", newline="") as file:
        none, se = csv.DictReader(file)
    right = {}
    for row in (none, se):
        with open(out / row["attention"] / "seed0" / "predictions.csv", newline="") as file:
            right[row["attention"]] = [int(item["right"]) for item in csv.DictReader(file)]
        assert float(row["mean"]) == pytest.approx(np.mean(right[row["attention"]]))
        config = yaml.safe_load((out / row["attention"] / "seed0" / "config.yaml").read_text())
        assert config["model"]["attention"] == row["attention"]
        network = create_model("resnet10", 8, attention=row["attention"], width=8)
        assert int(row["parameters"]) == sum(p.numel() for p in network.parameters())
        assert float(row["memory_gib"]) > 0
    assert float(se["difference"]) == pytest.approx(np.mean(right["se"]) - np.mean(right["none"]))
    assert float(se["low"]) <= float(se["difference"]) <= float(se["high"])
    text = (out / "comparison.md").read_text()
    assert re.search(r"\| se \| \d+\.\d\d \| [+-]\d+\.\d\d \| [+-]\d+\.\d\d … [+-]\d+\.\d\d \| one seed tells", text)
    assert (out / "comparison.png").stat().st_size > 5000


def test_what_is_done_is_not_done_again(compared, capsys):
    out, command = compared
    checkpoint = out / "se/seed0/checkpoints/last.ckpt"
    then = checkpoint.stat().st_mtime_ns
    assert main(command) == 0
    assert "trained in" not in capsys.readouterr().out
    assert checkpoint.stat().st_mtime_ns == then
    assert main([*command, "--train.epochs", "2"]) == 2
    assert "was begun with train.epochs 1, now it is 2" in capsys.readouterr().err


@pytest.mark.slow
def test_mechanisms_that_are_added_see_the_same_videos(compared, tiny_run, tmp_path, capsys):
    """Also where the data has grown, and the folder of the comparison has moved."""
    out, command = compared
    moved, added = tmp_path / "moved", tiny_run.parent / "videos/zoom_in/added.avi"
    shutil.copytree(out, moved)
    shutil.copy(next((tiny_run.parent / "videos/zoom_in").iterdir()), added)
    again = list(command)
    again[3], again[5] = "none,se,eca,cbam(reduction=0)", str(moved)
    try:
        assert main(again) == 2
    finally:
        added.unlink()
    said = capsys.readouterr()
    assert said.out.count("trained in") == 1
    assert "| eca |" in (moved / "comparison.md").read_text()
    assert "1 of 4 runs did not end" in said.err  # the one that fails is named, and the others are kept
    assert "reduction" in said.err
    assert said.err.count("\n") == 1
    tables = [(moved / name / "seed0/manifest.csv").read_text() for name in ("none", "eca")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_ending_it_ends_its_trainings(compared, tmp_path):
    """SIGTERM while the first run trains."""
    _, command = compared
    command = [*command, "--train.epochs", "200"]
    command[5] = str(tmp_path / "out")
    process = subprocess.Popen([sys.executable, "-m", "cbam3d", *command])
    steps = tmp_path / "out/none/seed0/metrics.csv"
    deadline = time.monotonic() + 120
    while not steps.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    children = [one for one in psutil.Process(process.pid).children() if "train" in one.cmdline()]
    process.terminate()
    assert process.wait(60) == 143
    assert len(children) == 1
    assert not children[0].is_running()
    assert (tmp_path / "out/none/seed0/checkpoints/last.ckpt").exists()
    assert not (tmp_path / "out/se").exists()


def test_the_recipe_comes_first(capsys):
    for arguments in (["--attention", "none,se"], ["motion", "--attention", "none,se", "--run.dir", "x"]):
        assert main(["compare", *arguments]) == 2
        assert capsys.readouterr().err.count("\n") == 1
