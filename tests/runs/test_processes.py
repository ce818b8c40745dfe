"""Training in real processes: killed, stopped, and started by torchrun."""

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from cbam3d import prepare, train
from cbam3d.config import Config
from cbam3d.data import motion
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.runs.processes import create_fabric
from tests.tiny import TINY, as_arguments

VALUES = {
    **TINY,
    "data.num_workers": 1,
    "data.test_fraction": 0.4,
    "train.epochs": 4,
    "train.batch_size": 4,
    "train.log_every": 1,
    "train.ema": 0.9,
    "train.accumulate": 2,
    "train.checkpoint_minutes": 0.0001,
    "eval.num_clips": 1,
    "eval.every_epochs": 2,
}


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("videos")
    motion.render(root, num_groups=4)
    prepare("folder", root)
    return root


def arguments(videos: Path, folder: Path, *more: str) -> list[str]:
    return ["train", *as_arguments(VALUES), "--data.root", str(videos), "--run.dir", str(folder), *more]


def start(arguments: list[str], launcher: tuple[str, ...] = ()) -> subprocess.Popen:
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, *launcher, "-m", "cbam3d", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def finish(process: subprocess.Popen) -> str:
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    return output


def wait_for_step(process: subprocess.Popen, folder: Path, step: int) -> None:
    table = folder / "steps.csv"
    while not table.exists() or f"\n{step}," not in table.read_text():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.002)


@pytest.fixture(scope="module")
def whole(videos, tmp_path_factory) -> Path:
    """A run that was never stopped."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train({**VALUES, "data.root": str(videos)}, run_dir=folder)
    return folder


def same_result(a: Path, b: Path) -> None:
    first, second = (load_tensors(folder / "checkpoints" / "last.ckpt", "checkpoint") for folder in (a, b))
    for key in ("model", "average"):
        assert first[key].keys() == second[key].keys()
        for name, value in first[key].items():
            assert torch.equal(value, second[key][name]), name
    assert first["state"] == second["state"]
    assert (a / "steps.csv").read_text() == (b / "steps.csv").read_text()
    timed = {"seconds", "clips_per_second", "waiting_share", "memory_gib"}
    tables = []
    for folder in (a, b):
        with open(folder / "metrics.csv", newline="") as file:
            tables.append([{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)])
    assert tables[0] == tables[1]


@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.slow), 7])
def test_a_run_that_was_killed_goes_on_to_the_same_result(videos, whole, tmp_path, step):
    folder = tmp_path / "run"
    process = start(arguments(videos, folder))
    wait_for_step(process, folder, step)
    process.kill()
    process.communicate()
    train({"data.num_workers": 0}, run_dir=folder, resume=True)
    same_result(folder, whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(videos, whole, tmp_path, number, caplog):
    folder = tmp_path / "run"
    process = start(arguments(videos, folder, "--train.checkpoint_minutes", "60"))
    wait_for_step(process, folder, 6)
    process.send_signal(number)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"stopped ({number.name}) in epoch" in output
    assert f"resume with: cbam3d train --resume --run.dir {folder}" in output
    assert "Traceback" not in output
    assert load_tensors(folder / "checkpoints" / "last.ckpt", "checkpoint")["state"]["steps"] >= 6
    with caplog.at_level("INFO", "cbam3d"):
        train({"data.num_workers": 2}, run_dir=folder, resume=True)
    assert "changed since: data.num_workers was 1, is 2" in caplog.text
    same_result(folder, whole)


def test_a_worker_that_dies_is_named(videos, tmp_path):
    folder = tmp_path / "run"
    process = start(arguments(videos, folder, "--train.epochs", "500"))
    wait_for_step(process, folder, 2)
    psutil = pytest.importorskip("psutil")
    workers = [
        child for child in psutil.Process(process.pid).children() if "resource_tracker" not in str(child.cmdline())
    ]
    workers[-1].kill()
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 2, output
    assert "DataLoader worker" in output
    assert "lower data.num_workers" in output
    assert "Traceback" not in output


SCRIPT = """
import sys
from datetime import timedelta
from pathlib import Path
import torch
from lightning_fabric import Fabric
from torch import nn
from cbam3d.data.augment import BatchTransform, train_transforms, train_crops
from cbam3d.data.crops import EvalCrops
from cbam3d.data.images import ImageDataset
from cbam3d.data.loader import EvalBatches, Loader, TrainBatches
from cbam3d.engine.scoring import score
from cbam3d.engine.optim import create_optimizer
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.sharding import Sharded
from cbam3d.engine.schedule import Schedule
from cbam3d.config import Config
from cbam3d.engine.losses import Loss
from cbam3d.engine.train import Trainer
import os

folder, world_size, strategy = Path(sys.argv[1]), int(os.environ.get("WORLD_SIZE", "1")), sys.argv[2]
strategy = Sharded(world_size, timedelta(minutes=2)) if strategy == "shard" else strategy
fabric = Fabric(accelerator="cpu", devices=world_size, strategy=strategy)
fabric.launch()
torch.manual_seed(0)
images = torch.randint(0, 256, (50, 3, 12, 12), dtype=torch.uint8)
data = ImageDataset(images, (images.float().mean((1, 2, 3)) > 127.5).long(), [str(i) for i in range(50)])
model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.GroupNorm(2, 8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 2))
model = fabric.setup_module(model)
optimizer = fabric.setup_optimizers(create_optimizer(model, "sgd", 0.05, 1e-3, {"momentum": 0.9}))
schedule = Schedule(optimizer, "cosine", 12, 2)
rank = fabric.global_rank

def loader(batches, crops, transforms):
    return Loader(data, batches, BatchTransform(crops, transforms, (0.5,) * 3, (0.25,) * 3, 0), 0, fabric.device)

transforms = train_transforms(flip=True, color_jitter=(0.2, 0.2, 0.2, 0.1), rotation=10)
train = loader(TrainBatches(data, 12, 0, rank, world_size), train_crops(8, crop_scale=(0.5, 1.0)), transforms)
held_out = loader(EvalBatches(data, 5, rank, world_size), [EvalCrops(8)], [])
if fabric.is_global_zero:
    (folder / "checkpoints").mkdir(parents=True)
fabric.barrier()
trainer = Trainer(
    fabric, model, optimizer, schedule, train, held_out, lambda m, h: score(fabric, m, h, 2, 5, True), folder,
    SkippedFiles(folder / "skipped.csv", 0, fabric.is_global_zero),
    Config().override({"train": {"epochs": 3, "label_smoothing": 0.1, "clip_grad_norm": 1.0, "accumulate": 2,
    "log_every": 1}}), {}, Loss(0.1), primary="top1",
)
evaluation, _ = trainer.fit()
if fabric.is_global_zero:
    assert evaluation.counts["num_images"] == 50
    (folder / "loss").write_text(str(evaluation.scores["loss"]))
"""


def run_in(processes: int, folder: Path, strategy: str = "auto") -> tuple[list[float], float]:
    script = folder.parent / "script.py"
    script.write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"] if processes > 1 else []
    command = [sys.executable, *launcher, str(script), str(folder), strategy]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False, timeout=200)
    assert done.returncode == 0, done.stderr[-3000:]
    with open(folder / "steps.csv", newline="") as file:
        return [float(row["loss"]) for row in csv.DictReader(file)], float((folder / "loss").read_text())


@pytest.fixture(scope="module")
def in_one(tmp_path_factory) -> tuple[Path, list[float], float]:
    """The same script in one process: its folder, and its losses."""
    folder = tmp_path_factory.mktemp("one") / "whole"
    return folder, *run_in(1, folder)


@pytest.mark.parametrize("processes", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_any_number_of_processes_has_the_same_losses(in_one, tmp_path, processes):
    """Without batch statistics: the same samples with the same augmentation, and each scored once."""
    _, losses, loss = in_one
    assert len(losses) == 12
    others, other = run_in(processes, tmp_path / str(processes))
    assert others == pytest.approx(losses, rel=1e-4)
    assert other == pytest.approx(loss, rel=1e-4)


def test_a_network_divided_among_processes_has_the_same_losses_and_checkpoint(in_one, tmp_path):
    """Batches that the processes do not divide evenly are scored, too."""
    folder, losses, loss = in_one
    others, other = run_in(2, tmp_path / "divided", "shard")
    assert others == pytest.approx(losses, rel=1e-4)
    assert other == pytest.approx(loss, rel=1e-4)
    one, two = (
        load_tensors(each / "checkpoints" / "last.ckpt", "checkpoint") for each in (folder, tmp_path / "divided")
    )
    for key, value in one["model"].items():
        torch.testing.assert_close(two["model"][key], value, rtol=1e-3, atol=1e-5)
    for number, entry in one["optimizer"]["state"].items():
        momentum = two["optimizer"]["state"][number]["momentum_buffer"]
        torch.testing.assert_close(momentum, entry["momentum_buffer"], rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_a_divided_run_resumes_divided_and_whole(videos, tmp_path):
    values = ("--run.devices", "2", "--run.strategy", "shard", "--train.ema", "null", "--train.optimizer", "adamw")
    folder, half = tmp_path / "run", tmp_path / "half"
    finish(start(arguments(videos, folder, *values)))
    process = start(arguments(videos, half, *values))
    wait_for_step(process, half, 3)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    shutil.copytree(half, tmp_path / "other")
    finish(start(["train", "--resume", "--run.dir", str(half)]))
    tables = [(each / "steps.csv").read_text() for each in (folder, half)]
    assert tables[0] == tables[1]
    saved = [load_tensors(each / "checkpoints" / "last.ckpt", "checkpoint")["model"] for each in (folder, half)]
    for name, value in saved[0].items():
        assert torch.equal(value, saved[1][name]), name
    run = train({"run.devices": 1, "run.strategy": "replicate"}, run_dir=tmp_path / "other", resume=True)
    assert run.evaluate().scores["loss"] == pytest.approx(run.metrics["loss"])


@pytest.mark.slow
def test_the_average_needs_whole_weights(videos, tmp_path):
    process = start(arguments(videos, tmp_path / "run", "--run.devices", "2", "--run.strategy", "shard"))
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "train.ema averages whole weights" in output
    assert "Traceback" not in output


@pytest.mark.slow
def test_torchrun_starts_the_command(videos, tmp_path):
    """Two processes, of which one writes; the second signal-free run of the same command resumes in one process."""
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    folder = tmp_path / "run"
    process = start(arguments(videos, folder, "--train.epochs", "1"), launcher)
    output = finish(process)
    assert output.count("everything is in") == 1
    with open(folder / "metrics.csv") as file:
        assert len(file.readlines()) == 2
    train({"data.num_workers": 0}, run_dir=folder, resume=True)


@pytest.mark.slow
def test_a_batch_that_the_processes_do_not_divide_is_refused(videos, tmp_path):
    launcher = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
    process = start(arguments(videos, tmp_path / "run", "--train.batch_size", "5"), launcher)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0
    assert "train.batch_size must be a multiple of the 2 processes, got 5" in output


BUG = """
import sys, time
from torch.utils.data import _utils
from cbam3d.cli import main
from cbam3d.engine.train import Trainer

_utils.MP_STATUS_CHECK_INTERVAL = 100.0  # seconds that PyTorch waits for each worker that does not end

def step(self, batch):
    print("raised", time.time(), flush=True)
    raise {error}

Trainer.step = step
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        ("KeyError('a bug')", "KeyError: 'a bug'"),
        pytest.param("TypeError('no')", "TypeError: no", marks=pytest.mark.slow),
    ],
)
def test_a_bug_ends_the_run_with_its_traceback_and_without_waiting_for_the_workers(videos, tmp_path, error, shown):
    command = [sys.executable, "-c", BUG.replace("{error}", error)]
    given = arguments(videos, tmp_path / "run", "--data.num_workers", "2", "--train.epochs", "50")
    done = subprocess.run([*command, *given], capture_output=True, text=True, timeout=300, check=False)
    ended = time.time()
    assert done.returncode == 1, done.stderr
    assert shown in done.stderr
    assert "Traceback" in done.stderr
    (raised,) = [float(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("raised")]
    assert ended - raised < 60


SHARE = """
import os, sys
from lightning_fabric import Fabric
from cbam3d.runs.processes import by_first_process
from cbam3d.errors import InputError, Stopped

fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp")
fabric.launch()
made = by_first_process(fabric, lambda: {"process": os.getpid(), "rank": fabric.global_rank})
assert made["rank"] == 0 and (made["process"] == os.getpid()) == fabric.is_global_zero

def refuse():
    raise InputError("no such folder")

try:
    by_first_process(fabric, refuse)
except InputError as error:
    assert fabric.is_global_zero and str(error) == "no such folder"
except Stopped as stopped:
    assert not fabric.is_global_zero and stopped.status == 2
else:
    raise AssertionError
"""


@pytest.mark.slow
def test_what_the_first_process_finds_all_have(tmp_path):
    (tmp_path / "share.py").write_text(SHARE)
    done = subprocess.run(
        [sys.executable, "share.py"], cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_device_that_is_not_there_comes_with_what_to_ask_for(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(InputError, match=r"sees 0 CUDA devices here; --run\.accelerator cpu") as raised:
        create_fabric(Config().override({"run.accelerator": "cuda"}))
    assert "\n" not in str(raised.value)
