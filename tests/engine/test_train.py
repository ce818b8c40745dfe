import copy
import csv
import io

import pytest
import torch
from lightning_fabric import Fabric
from rich.console import Console
from torch import nn

from cbam3d.data.loader import Batch
from cbam3d.engine.evaluate import evaluate
from cbam3d.engine.optim import cosine_with_warmup, create_optimizer
from cbam3d.engine.report import SkippedFiles
from cbam3d.engine.train import Trainer
from cbam3d.errors import InputError
from cbam3d.files import load_tensors


class Points:
    """Two clouds in the plane, in an order that depends on the epoch."""

    def __init__(self, problems=(), factor=1.0):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(64) % 2
        self.points = torch.randn(64, 2, generator=generator) + 3 * self.labels[:, None]
        self.problems, self.factor, self.epoch = list(problems), factor, 0

    def __len__(self):
        return 4

    def set_epoch(self, epoch):
        self.epoch = epoch

    def __iter__(self):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(self.epoch)).view(4, 16)
        for rows in order:
            yield Batch(self.points[rows] * self.factor, self.labels[rows], self.labels[rows], self.problems)


def trainer(folder, epochs=6, loader=None, limit=0, **changes):
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu")
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    optimizer = create_optimizer(model, "sgd", 0.1, 1e-4, 0.9)
    scheduler = cosine_with_warmup(optimizer, 6 * 4, 4)
    model, optimizer = fabric.setup(model, optimizer)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    settings = {
        "epochs": epochs,
        "evaluate_every": 1,
        "primary": "video_top1",
        "seed": 3,
        "label_smoothing": 0.1,
        "clip_grad_norm": 1.0,
        "facts": {"classes": ["a", "b"]},
    }
    return Trainer(
        fabric,
        model,
        optimizer,
        scheduler,
        loader or Points(),
        lambda: evaluate(fabric, model, Points(), 2, 64, False),
        folder,
        SkippedFiles(folder / "skipped.csv", limit),
        Console(file=io.StringIO()),
        **settings | changes,
    )


def rows(folder):
    """metrics.csv without what a clock decides."""
    with open(folder / "metrics.csv", newline="") as file:
        timed = {"seconds", "clips_per_second", "waiting_share"}
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


def test_it_learns_and_leaves_a_run_folder(tmp_path):
    evaluation, _ = trainer(tmp_path).fit()
    assert evaluation.scores["video_top1"] > 0.95
    table = rows(tmp_path)
    assert [int(row["epoch"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    last, best = (load_tensors(tmp_path / "checkpoints" / f"{name}.ckpt", "checkpoint") for name in ("last", "best"))
    assert last["epoch"] == 6
    scores = [float(row["video_top1"]) for row in table]
    assert best["epoch"] == last["best_epoch"] == 1 + scores.index(max(scores))
    assert last["classes"] == ["a", "b"]


def test_resuming_gives_the_run_that_was_never_stopped(tmp_path):
    whole, first, second = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts"
    trainer(whole).fit()
    trainer(first, epochs=3).fit()
    continued = trainer(second)
    continued.resume()
    continued.fit()
    assert rows(whole) == rows(second)
    there, here = (load_tensors(f / "checkpoints" / "last.ckpt", "checkpoint") for f in (whole, second))
    for key, value in there["model"].items():
        assert torch.equal(here["model"][key], value), key
    assert here["best_epoch"] == there["best_epoch"]


def test_one_step_equals_pytorch_by_hand(tmp_path):
    """Cross-entropy with smoothing, clipped gradient, SGD with Nesterov momentum, first warm-up rate."""
    loop = trainer(tmp_path, clip_grad_norm=0.05)
    reference = copy.deepcopy(loop.model.module)
    batch = next(iter(Points()))
    torch.manual_seed(1)
    loop._step(batch.inputs, batch.labels)
    torch.manual_seed(1)
    optimizer = torch.optim.SGD(
        [{"params": [p for p in reference.parameters() if p.ndim > 1], "weight_decay": 1e-4},
         {"params": [p for p in reference.parameters() if p.ndim == 1]}],
        lr=0.1 / 5, momentum=0.9, nesterov=True,
    )  # fmt: skip
    nn.CrossEntropyLoss(label_smoothing=0.1)(reference(batch.inputs), batch.labels).backward()
    nn.utils.clip_grad_norm_(reference.parameters(), 0.05)
    optimizer.step()
    for mine, theirs in zip(loop.model.parameters(), reference.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs)


def test_unreadable_files_stop_the_run_only_above_the_limit(tmp_path):
    problems = [("a.mp4", "empty file"), ("b.mp4", "cut")]
    trainer(tmp_path / "enough", epochs=1, loader=Points(problems), limit=2).fit()
    assert (tmp_path / "enough" / "skipped.csv").read_text().splitlines()[1:] == ["a.mp4,empty file", "b.mp4,cut"]
    with pytest.raises(InputError, match="2 files cannot be used"):
        trainer(tmp_path / "few", epochs=1, loader=Points(problems), limit=1).fit()


def test_a_loss_that_is_no_number_stops_and_keeps_the_epoch_before(tmp_path):
    loop = trainer(tmp_path, epochs=2)
    loop.fit()
    broken = trainer(tmp_path, loader=Points(factor=float("nan")))
    broken.resume()
    with pytest.raises(InputError, match=r"the loss of epoch 3 is nan at learning rate"):
        broken.fit()
    state = load_tensors(tmp_path / "checkpoints" / "last.ckpt", "checkpoint")
    assert state["epoch"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())
