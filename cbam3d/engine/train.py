"""The training loop."""

import math
import time
from collections.abc import Callable, Iterable, Sized
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn
from torch.nn import functional as F
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.tensorboard import SummaryWriter

from cbam3d.engine.checkpoint import save_checkpoint
from cbam3d.engine.evaluate import Evaluation, gather
from cbam3d.engine.report import EpochTable, SkippedFiles
from cbam3d.errors import InputError
from cbam3d.files import load_tensors


class TrainLoader(Sized, Iterable[Any], Protocol):
    """Yields batches with `inputs` (N, C, *S), `targets` (N,) or (N, K), `labels` and `problems`."""

    def set_epoch(self, epoch: int) -> None: ...


@dataclass
class Trainer:
    """A model and data -> a run folder with checkpoints, tables and TensorBoard events.

    Args:
        fabric: decides device, precision and processes; launched.
        model, optimizer: as `fabric.setup` returned them.
        scheduler: stepped once a batch.
        loader: the training data.
        evaluate: scores the model on held-out data.
        folder: of the run; exists.
        skipped: notes files that cannot be used.
        console: what is shown goes here.
        epochs: passes over the training data.
        evaluate_every: epochs between two scorings.
        primary: name of the score that decides which checkpoint is the best.
        seed: of dropout and the like, together with the epoch.
        label_smoothing: 0 … 1.
        clip_grad_norm: largest norm of the whole gradient, or None.
        facts: plain data kept in every checkpoint (the configuration, the class names).
    """

    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: LRScheduler
    loader: TrainLoader
    evaluate: Callable[[], Evaluation]
    folder: Path
    skipped: SkippedFiles
    console: Console
    epochs: int
    evaluate_every: int
    primary: str
    seed: int
    label_smoothing: float
    clip_grad_norm: float | None
    facts: dict[str, Any]
    epoch: int = 0  # finished epochs
    best_score: float = -1.0
    best_epoch: int = 0

    def resume(self) -> None:
        """Continue after the last epoch that was saved in the folder."""
        state = load_tensors(self.folder / "checkpoints" / "last.ckpt", "checkpoint")
        try:
            self.model.load_state_dict(state["model"])
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise InputError(f"{self.folder}/checkpoints/last.ckpt does not fit the network: {reason}") from None
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.epoch, self.best_score, self.best_epoch = state["epoch"], state["best_score"], state["best_epoch"]
        self.console.print(f"resuming after epoch {self.epoch}")

    def fit(self) -> tuple[Evaluation, EpochTable]:
        """Train up to the last epoch; return its scores and the table of all epochs."""
        table = EpochTable(self.folder / "metrics.csv", self.epoch)
        evaluation, is_writer = None, self.fabric.is_global_zero
        writer = SummaryWriter(self.folder / "tensorboard", purge_step=self.epoch + 1) if is_writer else None
        with writer or nullcontext() as events:
            while self.epoch < self.epochs:
                row = {"epoch": self.epoch + 1, **self._train_epoch()}
                self.epoch += 1
                if self.epoch % self.evaluate_every == 0 or self.epoch == self.epochs:
                    evaluation = self.evaluate()
                    self._note(evaluation.problems)
                    row |= evaluation.scores
                if events is not None:
                    table.add(row)
                    for name, value in row.items():
                        events.add_scalar(name, value, self.epoch)
                self._save(row.get(self.primary))
                self.console.print(_line(row, self.epochs))
        return evaluation or self.evaluate(), table

    def _train_epoch(self) -> dict[str, float]:
        """One pass; returns its mean loss, clips a second and share of time spent waiting for data."""
        self.model.train()
        self.loader.set_epoch(self.epoch)
        torch.manual_seed(hash((self.seed, self.epoch, self.fabric.global_rank)))
        loss_sum = torch.zeros((), device=self.fabric.device)
        learning_rate = float(self.scheduler.get_last_lr()[0])
        num_clips, waited, started = 0, 0.0, time.perf_counter()
        problems: list[tuple[str, str]] = []
        with _progress(self.console) as progress:
            task = progress.add_task(f"epoch {self.epoch + 1}/{self.epochs}", total=len(self.loader))
            asked = time.perf_counter()
            for batch in self.loader:
                waited += time.perf_counter() - asked
                problems += batch.problems
                if self.fabric.world_size == 1:
                    self._note(batch.problems)
                if self._everywhere(len(batch.labels) > 0):
                    loss_sum += self._step(batch.inputs, batch.targets) * len(batch.targets)
                    num_clips += len(batch.targets)
                self.scheduler.step()
                progress.advance(task)
                asked = time.perf_counter()
        if self.fabric.world_size > 1:
            self._note(gather(self.fabric, problems))
            totals = torch.stack([loss_sum, torch.tensor(float(num_clips), device=loss_sum.device)])
            loss_sum, clips = self.fabric.all_reduce(totals, reduce_op="sum")  # type: ignore[misc]
            num_clips = int(clips)
        loss = float(loss_sum) / max(1, num_clips)
        if not math.isfinite(loss):
            raise InputError(
                f"the loss of epoch {self.epoch + 1} is {loss} at learning rate {learning_rate:.3g}: lower "
                f"train.learning_rate or set train.clip_grad_norm; the epoch before is kept in {self.folder}"
            )
        seconds = time.perf_counter() - started
        return {
            "train_loss": loss,
            "learning_rate": learning_rate,
            "clips_per_second": num_clips / seconds,
            "waiting_share": waited / seconds,
            "seconds": seconds,
        }

    def _step(self, inputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        loss = F.cross_entropy(self.model(inputs), targets, label_smoothing=self.label_smoothing)
        self.fabric.backward(loss)
        if self.clip_grad_norm is not None:
            self.fabric.clip_gradients(
                self.model, self.optimizer, max_norm=self.clip_grad_norm, error_if_nonfinite=False
            )
        self.optimizer.step()
        self.optimizer.zero_grad()
        return loss.detach()

    def _everywhere(self, ready: bool) -> bool:
        """Whether all processes have something to step with; one alone would wait for the others for ever."""
        if self.fabric.world_size == 1:
            return ready
        return bool(self.fabric.all_reduce(torch.tensor(float(ready), device=self.fabric.device)) == 1)

    def _note(self, problems: list[tuple[str, str]]) -> None:
        for line in self.skipped.add(problems):
            self.console.print(f"skipped {line}", style="yellow")

    def _save(self, score: float | None) -> None:
        improved = False
        if score is not None and score > self.best_score:
            improved = True
            self.best_score, self.best_epoch = score, self.epoch
        state = {
            "model": self.model,
            "optimizer": self.optimizer,
            "scheduler": self.scheduler.state_dict(),
            "epoch": self.epoch,
            "best_score": self.best_score,
            "best_epoch": self.best_epoch,
            **self.facts,
        }
        for name in ("last.ckpt", "best.ckpt") if improved else ("last.ckpt",):
            save_checkpoint(self.fabric, self.folder / "checkpoints" / name, state)


def _progress(console: Console) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    timing = (TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(*columns, *timing, console=console, transient=True, disable=not console.is_terminal)


def _line(row: dict[str, float], epochs: int) -> str:
    parts = [f"epoch {row['epoch']:>3.0f}/{epochs}", f"train loss {row['train_loss']:.3f}"]
    parts += [f"{name} {value:.1%}" for name, value in row.items() if "top" in name]
    parts += [f"{row['clips_per_second']:.0f} clips/s", f"waiting {row['waiting_share']:.0%}"]
    return "  ".join(parts)
