"""Mechanisms compared: the words that ask for them, real runs, and what is said of them."""

import csv
import re
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
import yaml

from cbam3d import compare, measure_cost
from cbam3d.attention import catalog, create_head
from cbam3d.config import RunConfig, load_config
from cbam3d.errors import InputError
from cbam3d.models import create_model, zoo
from cbam3d.runs import comparison_table
from cbam3d.runs.comparison import IncompleteComparison, _Processes
from cbam3d.runs.cost import multiply_adds
from cbam3d.runs.network import build_model
from cbam3d.runs.processes import environments
from tests.tiny import TINY, as_arguments

pytestmark = pytest.mark.draws


@pytest.mark.slow
def test_heads_of_a_probe_share_their_features(tiny_run, tmp_path):
    probe = {
        **TINY,
        "data.root": str(tiny_run.parent / "videos"),
        "model.attention": "none",
        "train.freeze": ["backbone.*"],
        "train.cached_views": 2,
    }
    found = compare(probe, heads=["mean", "gltr(dim=8)"], seeds=1, out=tmp_path / "out")
    assert [row.name for row in found.rows] == ["mean", "gltr(dim=8)"]
    assert len(list((tmp_path / "out" / "features").iterdir())) == 2  # for training, for scoring
    text = (tmp_path / "out" / "comparison.md").read_text()
    assert "| head | video_top1, %" in text
    assert (tmp_path / "out" / "comparison.csv").read_text().startswith("head,")


def test_each_training_has_its_place(monkeypatch):
    monkeypatch.setattr("os.sched_getaffinity", lambda process: set(range(8)))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    (alone,) = environments(None, RunConfig())
    assert "OMP_NUM_THREADS" not in alone  # it has the whole machine
    assert [place["OMP_NUM_THREADS"] for place in environments(2, RunConfig())] == ["4", "4"]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5")
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(None, RunConfig())] == ["2", "5"]
    assert [place["CUDA_VISIBLE_DEVICES"] for place in environments(3, RunConfig())] == ["2", "5", "2"]
    assert len(environments(None, RunConfig(accelerator="cpu"))) == 1


def test_multiply_adds_are_those_counted_by_hand():
    layers = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, padding=1, bias=False), torch.nn.Flatten())
    layers.append(torch.nn.Linear(8 * 2 * 4 * 4, 5))
    assert multiply_adds(layers, torch.zeros(1, 3, 2, 4, 4)) == 8 * 3 * 27 * 32 + 8 * 32 * 5


def test_multiply_adds_of_a_head_with_queries_are_counted():
    head = create_head("attention", 8, 3, num_heads=1)
    tokens = 2 * 3 * 4
    projections = 8 * 8 * (1 + tokens + tokens + 1)  # of the query, keys, values and the result
    assert multiply_adds(head, torch.zeros(1, 8, 2, 3, 4)) == projections + 2 * 8 * tokens + 8 * 3


def test_a_cost_is_measured_and_the_network_left_as_it_was():
    model = torch.nn.Sequential(torch.nn.Conv3d(3, 8, 3, bias=False), torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    cost = measure_cost(model.eval(), (2, 3, 4, 8, 8), num_classes=5)
    assert (cost.num_parameters, cost.multiply_adds) == (8 * 3 * 27, 8 * 3 * 27 * 2 * 6 * 6)
    assert cost.step_seconds > 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not model.training


@pytest.fixture(scope="module")
def compared(tiny_run, tmp_path_factory) -> tuple[Path, dict]:
    """The folder of a comparison, and the recipe that was compared."""
    out = tmp_path_factory.mktemp("compare") / "out"
    recipe = {**TINY, "data.root": str(tiny_run.parent / "videos")}
    found = compare(recipe, ["none", "se"], seeds=1, out=out)
    assert [row.name for row in found.rows] == ["none", "se"]
    return out, recipe


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


def test_what_is_done_is_not_done_again(compared):
    out, recipe = compared
    checkpoint = out / "se/seed0/checkpoints/last.ckpt"
    then = checkpoint.stat().st_mtime_ns
    compare(recipe, "none,se", seeds=1, out=out)
    assert checkpoint.stat().st_mtime_ns == then
    with pytest.raises(InputError, match=r"was begun with train\.epochs 1, now it is 2"):
        compare({**recipe, "train.epochs": 2}, "none,se", seeds=1, out=out)
    with pytest.raises(InputError, match=r"was begun with data\.groups None, now it is other\.csv; take another --out"):
        compare({**recipe, "data.groups": "other.csv"}, "none,se", seeds=1, out=out)


@pytest.mark.slow
def test_each_variant_is_timed_as_it_is_trained_and_the_second_call_goes_on(tiny_run, tmp_path, monkeypatch, caplog):
    recipe = {**TINY, "data.root": str(tiny_run.parent / "videos"), "model.attention": "tam"}
    variants = {"short": {"data.num_frames": 2}, "long": {"data.num_frames": 6, "run.precision": "auto"}}
    (short, long) = compare(recipe, variants=variants, seeds=1, out=tmp_path / "out").rows
    assert long.multiply_adds > 2 * short.multiply_adds
    assert long.step_ratio > 1

    def fail(*arguments):
        raise RuntimeError("out of memory")

    monkeypatch.setattr(comparison_table, "paired_steps", fail)
    again = compare(recipe, variants=variants, seeds=1, out=tmp_path / "out")
    assert [row.scores for row in again.rows] == [short.scores, long.scores]
    assert "long: its costs cannot be measured (out of memory)" in caplog.text
    assert again.tables()[1][2][3:5] == ["", ""]


def test_the_step_of_a_probe_is_that_of_its_head(monkeypatch):
    config = load_config(
        {**TINY, "model.as_video": "frames", "model.attention": "none", "model.head": "mean", "train.cached_views": 2}
        | {"train.freeze": ["backbone.*"]}
    )
    seen: list[torch.Tensor] = []
    monkeypatch.setattr(comparison_table, "training_step", lambda fabric, network, inputs, k: seen.append(inputs))
    comparison_table._step(build_model(config, 8, images=False), config, 8, images=False)
    (inputs,) = seen
    assert len(inputs) == config.train.batch_size
    assert inputs.shape[1:3] == (64, config.data.num_frames)  # features of frames, not pictures


def test_a_training_that_ran_out_of_time_is_said(tiny_run, compared_here, tmp_path):
    def stopped(self, command, **options):
        return 0  # as train.max_hours ends it

    recipe = {**TINY, "data.root": str(tiny_run.parent / "videos")}
    compare(recipe, "none,se", seeds=1, out=tmp_path / "out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Processes, "run", stopped)
        with pytest.raises(IncompleteComparison, match=r"1 of 3 runs did not end.*eca.*train\.max_hours") as failed:
            compare(recipe, "none,se,eca", seeds=1, out=tmp_path / "out")
        assert [row.name for row in failed.value.compared.rows] == ["none", "se"]
        with pytest.raises(IncompleteComparison, match="2 of 2 runs did not end"):
            compare(recipe, "none,se", seeds=1, out=tmp_path / "other")


@pytest.mark.slow
def test_mechanisms_that_are_added_see_the_same_videos(compared, tiny_run, tmp_path):
    """Also where the data has grown, and the folder of the comparison has moved."""
    out, recipe = compared
    moved, added = tmp_path / "moved", tiny_run.parent / "videos/zoom_in/added.avi"
    shutil.copytree(out, moved)
    shutil.copy(next((tiny_run.parent / "videos/zoom_in").iterdir()), added)
    checkpoint = moved / "se/seed0/checkpoints/last.ckpt"
    then = checkpoint.stat().st_mtime_ns
    try:
        with pytest.raises(IncompleteComparison, match=r"1 of 4 runs did not end.*reduction") as raised:
            compare(recipe, "none,se,eca,cbam(reduction=0)", seeds=1, out=moved)
    finally:
        added.unlink()
    assert "\n" not in str(raised.value)  # the one that fails is named, and the others are kept
    assert [row.name for row in raised.value.compared.rows] == ["none", "se", "eca"]
    assert "| eca |" in (moved / "comparison.md").read_text()
    assert checkpoint.stat().st_mtime_ns == then
    tables = [(moved / name / "seed0/manifest.csv").read_text() for name in ("none", "eca")]
    assert tables[0] == tables[1]


@pytest.mark.slow
def test_ending_it_ends_its_trainings(compared, tmp_path):
    """SIGTERM while the first run trains."""
    _, recipe = compared
    values = {key: value for key, value in recipe.items() if key != "config"} | {"train.epochs": 200}
    command = ["compare", "folder", "--attention", "none,se", "--seeds", "1", "--out", str(tmp_path / "out")]
    command += as_arguments(values)
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


def test_what_only_this_process_knows_is_refused_before_anything_is_trained(tmp_path, monkeypatch):
    class Own(torch.nn.Identity):
        def __init__(self, channels, init="paper"):
            super().__init__()

    monkeypatch.setattr(catalog.mechanisms, "added", {"own": Own})
    monkeypatch.setattr(zoo.networks, "added", {"own_net": Own})
    for values, words, name in (
        ({}, "none,own", "attention own"),
        ({"model.name": "own_net"}, "none,se", "network own_net"),
        ({"model.name": "__main__:Net"}, "none,se", "network __main__:Net"),
    ):
        with pytest.raises(InputError, match=f"the {name} is known in this process only"):
            compare({**TINY, **values}, words, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_is_wrong_is_one_line(tmp_path):
    for values, options, message in (
        ({"run.dir": "x"}, {}, "--out takes the place of run.dir"),
        ({}, {"seeds": 0}, "seeds must be at least 1, got 0"),
        ({}, {"jobs": 0}, "jobs must be at least 1, got 0"),
    ):
        with pytest.raises(InputError, match=message):
            compare({"config": "motion", **values}, "none,se", out=tmp_path / "out", **options)


def test_variants_of_any_keys_may_be_compared_instead(compared, compared_here, tmp_path):
    _, recipe = compared
    path = tmp_path / "variants.yaml"
    path.write_text("plain: {model.attention: none}\nwith mixup:\n  augment.mixup: 0.4\n  model: {attention: se}\n")
    found = compare(recipe, variants=path, seeds=1, out=tmp_path / "out")
    assert [row.name for row in found.rows] == ["plain", "with mixup"]
    for name, mixup, attention in (("plain", 0, "none"), ("with-mixup", 0.4, "se")):
        config = yaml.safe_load((tmp_path / "out" / name / "seed0" / "config.yaml").read_text())
        assert (config["augment"]["mixup"], config["model"]["attention"]) == (mixup, attention)
    assert (tmp_path / "out" / "comparison.md").read_text().count("| variant |") == 2
    for row, attention in zip(found.rows, ("none", "se"), strict=True):
        network = create_model("resnet10", 8, attention=attention, width=8)
        assert row.parameters == sum(p.numel() for p in network.parameters())


@pytest.mark.parametrize(
    ("variants", "reason"),
    [
        ({"a": {}}, "variants names at least two"),
        ({"a b": {}, "a-b": {}}, "each once"),
        ({"a": {}, "b": {"augment.mixpu": 1}}, "variant b: .*mixup"),
        ({"a": {}, "b": {"data.root": "elsewhere"}}, r"variant b: data\.root is the same for all"),
        ({"a": {}, "b": 3}, "variant b: expected keys with values"),
    ],
)
def test_what_is_no_variant_is_one_line(variants, reason, tmp_path):
    with pytest.raises(InputError, match=reason) as raised:
        compare("folder", variants=variants, out=tmp_path)
    assert "\n" not in str(raised.value)
    assert not any(tmp_path.iterdir())


def test_no_process_begins_once_they_have_to_end(tmp_path):
    processes = _Processes()
    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(processes.run, [sys.executable, "-c", "import time; time.sleep(60)"])
        while not processes.going:
            time.sleep(0.01)
        processes.end()
        assert slow.result() == -signal.SIGTERM
    assert processes.run([sys.executable, "-c", f"open({str(tmp_path / 'ran')!r}, 'w')"]) is None
    assert not (tmp_path / "ran").exists()
