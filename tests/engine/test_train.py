import copy
import csv
from contextlib import nullcontext
from dataclasses import replace
from unittest.mock import Mock

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from cbam3d.config import Config
from cbam3d.data.loader import Batch
from cbam3d.engine.losses import Loss
from cbam3d.engine.optim import MovingAverage, create_optimizer
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.schedule import Schedule
from cbam3d.engine.scoring import score
from cbam3d.engine.train import Trainer, weights_of
from cbam3d.errors import InputError, Stopped
from cbam3d.files import load_tensors


class Points:
    """Two clouds in the plane, in an order that depends on the epoch."""

    def __init__(self, problems=(), factor=1.0):
        generator = torch.Generator().manual_seed(0)
        self.labels = torch.arange(64) % 2
        self.points = torch.randn(64, 2, generator=generator) + 3 * self.labels[:, None]
        self.problems, self.factor, self.epoch, self.start = list(problems), factor, 0, 0

    def __len__(self):
        return 4

    def set_epoch(self, epoch, start=0):
        self.epoch, self.start = epoch, start

    def __iter__(self):
        order = torch.randperm(64, generator=torch.Generator().manual_seed(self.epoch)).view(4, 16)
        for rows in order[self.start :]:
            names = [f"point {row}" for row in rows.tolist()]
            yield Batch(self.points[rows] * self.factor, self.labels[rows], self.labels[rows], names, self.problems)


def trainer(
    folder, epochs=6, loader=None, limit=0, schedule=None, ema=None, optimizer="sgd", every=1, fused=False, **changes
):
    usual = {"label_smoothing": 0.1, "clip_grad_norm": 1.0, "log_every": 1}
    torch.manual_seed(0)
    fabric = Fabric(accelerator="cpu")
    model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3), nn.Linear(8, 2))
    options = {"momentum": 0.9, "nesterov": True} if optimizer == "sgd" else {}
    optimizer = create_optimizer(model, optimizer, 0.1, 1e-4, options, fused=fused)
    settings = {"total_steps": 6 * 4, "warmup_steps": 4} | (schedule or {"kind": "cosine"})
    chosen = Schedule(optimizer, **settings)
    average = None if ema is None else MovingAverage(model, ema)
    model, optimizer = fabric.setup(model, optimizer)
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    return Trainer(
        fabric,
        model,
        optimizer,
        chosen,
        loader or Points(),
        Points(),
        lambda scored, held_out: score(fabric, scored, held_out, 2, 64, False),
        folder,
        SkippedFiles(folder / "skipped.csv", limit),
        Config().override({"train": {"epochs": epochs, **usual, **changes}, "run.seed": 3, "eval.every_epochs": every}),
        {"classes": ["a", "b"]},
        Loss(usual["label_smoothing"]),
        average,
    )


def last_checkpoint(loop):
    return load_tensors(loop.folder / "checkpoints" / "last.ckpt", "checkpoint")


def rows(folder):
    """metrics.csv without what a clock decides."""
    with open(folder / "metrics.csv", newline="") as file:
        timed = {"seconds", "clips_per_second", "waiting_share", "memory_gib"}
        return [{k: v for k, v in row.items() if k not in timed} for row in csv.DictReader(file)]


def test_it_learns_and_leaves_a_run_folder(tmp_path):
    evaluation, _ = trainer(tmp_path).fit()
    assert evaluation.scores["video_top1"] > 0.95
    table = rows(tmp_path)
    assert [int(row["epoch"]) for row in table] == [1, 2, 3, 4, 5, 6]
    assert float(table[-1]["train_loss"]) < float(table[0]["train_loss"])
    assert list((tmp_path / "tensorboard").glob("events.out.tfevents.*"))
    last, best = (load_tensors(tmp_path / "checkpoints" / f"{name}.ckpt", "checkpoint") for name in ("last", "best"))
    assert last["state"]["epoch"] == 6
    scores = [float(row["video_top1"]) for row in table]
    assert best["state"]["epoch"] == last["state"]["best_epoch"] == 1 + scores.index(max(scores))
    assert last["classes"] == ["a", "b"]


def test_resuming_gives_the_run_that_was_never_stopped(tmp_path):
    whole, first, second = tmp_path / "whole", tmp_path / "parts", tmp_path / "parts"
    trainer(whole).fit()
    trainer(first, epochs=3).fit()
    continued = trainer(second)
    continued.resume(last_checkpoint(continued))
    continued.fit()
    assert rows(whole) == rows(second)
    there, here = (load_tensors(f / "checkpoints" / "last.ckpt", "checkpoint") for f in (whole, second))
    for key, value in there["model"].items():
        assert torch.equal(here["model"][key], value), key
    assert here["state"] == there["state"]


def test_one_step_equals_pytorch_by_hand(tmp_path):
    """Cross-entropy with smoothing, clipped gradient, SGD with Nesterov momentum, first warm-up rate."""
    loop = trainer(tmp_path, clip_grad_norm=0.05)
    reference = copy.deepcopy(loop.model.module)
    batch = next(iter(Points()))
    loop.step(batch)
    torch.manual_seed(hash((3, 0, 0, 0)))  # dropout's
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


class Poisoned(Points):
    """One batch of each epoch has no numbers."""

    def __iter__(self):
        for number, batch in enumerate(super().__iter__(), self.start):
            yield replace(batch, inputs=batch.inputs * float("nan")) if number == 2 else batch


def test_a_loss_that_is_no_number_stops_and_keeps_a_checkpoint_from_before(tmp_path):
    trainer(tmp_path, epochs=2).fit()
    broken = trainer(tmp_path, loader=Poisoned())
    broken.resume(last_checkpoint(broken))
    with pytest.raises(
        InputError, match=r"the loss is nan in epoch 3, batch 3 at learning rate 0\.\d+ \(samples: point"
    ):
        broken.fit()
    state = load_tensors(tmp_path / "checkpoints" / "last.ckpt", "checkpoint")
    assert state["state"]["epoch"] == 2
    assert all(value.isfinite().all() for value in state["model"].values())


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("fused", [False, True])  # where the host decides, and the device
def test_a_loss_that_is_no_number_changes_nothing_up_to_the_limit(tmp_path, fused, optimizer, first):
    bad = 0 if first else 2

    class Poisoned(Points):
        def __iter__(self):
            for number, batch in enumerate(super().__iter__(), self.start):
                yield replace(batch, inputs=batch.inputs * float("nan")) if number == bad else batch

    loop = trainer(tmp_path, epochs=1, loader=Poisoned(), max_bad_steps=1, optimizer=optimizer, fused=fused, ema=0.9)
    assert loop.update.on_device == fused
    seen = []

    def everything():
        return {
            **loop.model.state_dict(),
            **{f"average {key}": v for key, v in loop.average.module.state_dict().items()},
        }

    def note(batch, step=loop.step):
        before = {key: value.clone() for key, value in everything().items()}
        step(batch)
        unchanged = {key for key, value in everything().items() if torch.equal(value, before[key])}
        if batch.inputs.isnan().any():
            assert unchanged == set(before)
        else:
            assert not {"0.weight", "1.running_mean", "average 0.weight"} & unchanged
        seen.append(batch)

    loop.step = note
    _, table = loop.fit()
    assert len(seen) == loop.state.steps == 4
    assert loop.state.bad_steps == 1
    assert float(table.rows[0]["train_loss"]) > 0
    assert all(value.isfinite().all() for value in everything().values())
    with pytest.raises(InputError, match="is nan"):
        trainer(tmp_path / "two", epochs=2, loader=Poisoned(), max_bad_steps=1, fused=fused).fit()


@pytest.mark.parametrize("first", [True, False])
def test_a_run_goes_on_with_the_optimiser_of_its_checkpoint(tmp_path, first):
    """Begun on a CPU and resumed on a GPU, or the other way: fused or not."""
    trainer(tmp_path, epochs=2, fused=first).fit()
    other = trainer(tmp_path, epochs=3, fused=not first)
    other.resume(last_checkpoint(other))
    assert other.update.on_device == first
    other.fit()
    assert other.state.steps == 12


def test_a_fused_optimiser_takes_the_same_steps(tmp_path):
    weights = []
    for fused in (False, True):
        loop = trainer(tmp_path / str(fused), epochs=3, fused=fused, ema=0.9)
        loop.fit()
        weights.append([*loop.model.state_dict().values(), *loop.average.module.state_dict().values()])
    for one, other in zip(*weights, strict=True):
        torch.testing.assert_close(one, other)


class StopAt:
    """Asks to stop after a step of the run."""

    def __init__(self, step, state):
        self.step, self.state, self.signal = step, state, None

    @property
    def reason(self):
        return "test" if self.state.steps == self.step else ""

    def listening(self):
        return nullcontext()


@pytest.mark.parametrize("step", [1, 3, 4, 7, 18])
@pytest.mark.parametrize(
    "changes",
    [
        {"ema": 0.9, "accumulate": 3},
        {"schedule": {"kind": "one_cycle", "warmup_steps": 8}, "optimizer": "adamw"},
        {"schedule": {"kind": "plateau", "patience": 0, "gamma": 0.5}, "optimizer": "RMSprop"},
        {"schedule": {"kind": "multi_step", "milestones": [6, 13]}, "optimizer": "adam", "every": 2},
    ],
)
def test_stopping_within_an_epoch_and_going_on_is_the_run_that_was_never_stopped(tmp_path, step, changes):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    trainer(whole, **changes).fit()
    stopped = trainer(parts, **changes)
    stopped.stop = StopAt(step, stopped.state)
    with pytest.raises(Stopped, match="resume with: cbam3d train --resume"):
        stopped.fit()
    assert stopped.state.steps == step
    continued = trainer(parts, **changes)
    continued.resume(last_checkpoint(continued))
    continued.fit()
    assert rows(whole) == rows(parts)
    assert (whole / "steps.csv").read_text() == (parts / "steps.csv").read_text()
    there, here = (load_tensors(f / "checkpoints" / "last.ckpt", "checkpoint") for f in (whole, parts))
    for key in ("model", "average"):
        for name, value in (there[key] or {}).items():
            assert torch.equal(here[key][name], value), name
    assert here["state"] == there["state"]
    assert str(here["optimizer"]) == str(there["optimizer"])


def test_parts_of_a_batch_give_the_step_of_the_whole(tmp_path):
    """Without BatchNorm and dropout, whose results depend on the parts."""

    def weights(folder, accumulate):
        loop = trainer(folder, epochs=1, accumulate=accumulate)
        for module in loop.model.modules():
            if isinstance(module, (nn.BatchNorm1d, nn.Dropout)):
                module.eval()
        for batch in Points():
            loop.step(batch)
        return [p.detach() for p in loop.model.parameters()]

    whole = weights(tmp_path / "1", 1)
    for accumulate in (2, 3, 16, 40):
        for mine, theirs in zip(weights(tmp_path / str(accumulate), accumulate), whole, strict=True):
            torch.testing.assert_close(mine, theirs)


def test_the_average_is_what_is_scored_and_saved(tmp_path):
    loop = trainer(tmp_path, epochs=1, ema=0.5)
    history = []

    def note(batch, step=loop.step):
        loss = step(batch)
        history.append(loop.model.module[0].weight.detach().clone())
        return loss

    loop.step = note
    loop.fit()
    average = history[0]  # the first update copies
    for step, weight in enumerate(history[1:], start=1):
        decay = min(0.5, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * weight
    loop.evaluate = lambda model, held_out: model[0].weight
    torch.testing.assert_close(loop.score(Points()), average)
    saved = load_tensors(tmp_path / "checkpoints" / "last.ckpt", "checkpoint")
    torch.testing.assert_close(weights_of(saved)["0.weight"], average)
    assert not torch.allclose(saved["model"]["0.weight"], average)


def test_training_ends_when_it_gets_no_better(tmp_path):
    loop = trainer(tmp_path, epochs=6, early_stopping=2)
    scores = iter([0.5, 0.9, 0.8, 0.9, 1.0])
    evaluate_really = loop.evaluate
    loop.evaluate = lambda *given: replace(
        (result := evaluate_really(*given)), scores={**result.scores, "video_top1": next(scores)}
    )
    loop.fit()
    assert (loop.state.epoch, loop.state.best_epoch) == (4, 2)


def test_too_little_memory_says_what_to_change(tmp_path):
    loop = trainer(tmp_path, epochs=1)
    loop.model.forward = Mock(side_effect=torch.OutOfMemoryError("CUDA out of memory"))
    with pytest.raises(InputError, match=r"out of memory with 16 samples .*raise train\.accumulate .*batch_size"):
        loop.fit()


def test_a_checkpoint_of_another_network_is_refused(tmp_path):
    trainer(tmp_path, epochs=1).fit()
    other = trainer(tmp_path, epochs=2)
    other.model = other.fabric.setup_module(nn.Linear(2, 2))
    with pytest.raises(InputError, match=r"last\.ckpt does not fit the network"):
        other.resume(last_checkpoint(other))


def test_a_gradient_that_is_not_finite_changes_nothing(tmp_path):
    """The loss is finite: what would spoil the weights is what the step is about to apply."""
    loop = trainer(tmp_path, epochs=1, max_bad_steps=1, clip_grad_norm=None, ema=0.9, checkpoint_minutes=1e-9)
    calls = []

    def spoil(gradient):
        calls.append(len(calls))
        return gradient * torch.inf if len(calls) == 3 else gradient

    loop.model.module[4].weight.register_hook(spoil)
    loop.fit()
    assert len(calls) == 4
    assert loop.state.bad_steps == 1
    saved = last_checkpoint(loop)
    for key in ("model", "average"):
        assert all(value.isfinite().all() for value in saved[key].values())


@pytest.mark.parametrize(("clip", "advice"), [(None, "set train.clip_grad_norm"), (1.0, "lower train.clip_grad_norm")])
def test_the_advice_is_not_what_is_done_already(tmp_path, clip, advice):
    loop = trainer(tmp_path, epochs=1, clip_grad_norm=clip)
    loop.model.module[4].weight.register_hook(lambda gradient: gradient * torch.nan)
    with pytest.raises(InputError, match=rf"the gradient is not finite in epoch 1, batch 1 .*{advice}"):
        loop.fit()
