"""The training loop.

All randomness in a step follows from (seed, epoch, batch), so a run that resumes from any checkpoint, even from within
an epoch, takes the same steps as a run that was never stopped.
"""

import logging
import math
import time
from collections.abc import Callable, Iterable, Sized
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from cbam3d.config import Config
from cbam3d.engine.checkpoint import checkpoint_path, save_checkpoint
from cbam3d.engine.losses import Loss
from cbam3d.engine.memory import advise, peak_memory_gib
from cbam3d.engine.optim import MovingAverage, train_mode
from cbam3d.engine.progress import Progress, ended, no_progress
from cbam3d.engine.records import EpochTable, SkippedFiles, StepTable
from cbam3d.engine.schedule import Schedule
from cbam3d.engine.scoring import Evaluation, gather
from cbam3d.engine.sharding import gathered, load_model, load_optimizer, whole
from cbam3d.engine.stop import StopRequest
from cbam3d.engine.update import Update
from cbam3d.engine.waiting import Idle, Readings
from cbam3d.errors import InputError, Stopped

logger = logging.getLogger(__name__)

_LINE_SECONDS = 5.0  # of epochs that take less, and are not scored, not each has a line


class TrainLoader(Sized, Iterable[Any], Protocol):
    """Yields batches with `inputs` (N, C, *S), `targets` (N,) or (N, K), `labels`, `names` and `problems`."""

    def set_epoch(self, epoch: int, start: int = 0) -> None: ...


@dataclass
class State:
    """Progress of training."""

    epoch: int = 0  # finished epochs
    batch: int = 0  # finished batches of the next
    steps: int = 0  # in all
    loss_sum: float = 0.0  # of the epoch so far, over clips
    num_clips: int = 0
    bad_steps: int = 0
    best_score: float = -1.0
    best_epoch: int = 0
    not_better: int = 0  # evaluations since the best


class Step(NamedTuple):
    """What a step was, for when its numbers arrive."""

    number: int  # from 1
    epoch: int
    batch: int
    learning_rate: float
    num_clips: float  # of all processes
    names: list[str]  # of this process's samples


class Hosts:
    """What the hosts of all processes tell each other before a step, without their devices."""

    def __init__(self, fabric: Fabric) -> None:
        self.several = fabric.world_size > 1
        on_gpu = self.several and fabric.device.type == "cuda"  # whose reductions would wait for the device
        self.group: Any = torch.distributed.new_group(backend="gloo") if on_gpu else None

    def total(self, values: list[float]) -> list[float]:
        """The sums over all processes."""
        if not self.several:
            return values
        sums = torch.tensor(values, dtype=torch.float64)
        torch.distributed.all_reduce(sums, group=self.group)
        return sums.tolist()


@dataclass
class Trainer:
    """A model and data -> a run folder with checkpoints, tables and TensorBoard events.

    Args:
        fabric: decides device, precision and processes; launched.
        model, optimizer: as `fabric.setup` returned them.
        schedule: stepped once per batch.
        loader: the training data.
        held_out: the data that models are scored on in between.
        evaluate: scores a model on held-out data.
        folder: of the run; exists.
        skipped: records files that cannot be used.
        config: of the run: `train`, `eval.every_epochs` and `run.seed` matter.
        facts: plain data kept in every checkpoint (the configuration, the class names).
        loss: of the network's outputs and the targets, on the device.
        average: moving average of the model's weights, evaluated in place of them; None for none.
        stop: requests to stop early.
        progress: shows the progress of an epoch.
        primary: name of the score that decides which checkpoint is the best.
        memory_format: of the batches.
    """

    fabric: Fabric
    model: nn.Module
    optimizer: torch.optim.Optimizer
    schedule: Schedule
    loader: TrainLoader
    held_out: Iterable[Any]
    evaluate: Callable[[nn.Module, Iterable[Any]], Evaluation]
    folder: Path
    skipped: SkippedFiles
    config: Config
    facts: dict[str, Any]
    loss: Loss
    average: MovingAverage | None = None
    stop: StopRequest = field(default_factory=StopRequest)
    progress: Progress = no_progress
    primary: str = "video_top1"
    memory_format: torch.memory_format = torch.contiguous_format
    state: State = field(default_factory=State)

    def __post_init__(self) -> None:
        if self.average is not None:
            self.average.module.to(self.fabric.device)
        self.scaler = getattr(self.fabric.strategy.precision, "scaler", None)
        inner: Any = getattr(self.optimizer, "optimizer", self.optimizer)  # without Fabric's wrapper
        self.update = Update(inner, _inner(self.model), self.average, self.scaler)
        together = self.config.passes_together and self.fabric.world_size > 1
        self.least = self.config.train.accumulate if together else 1  # samples of a process
        self.hosts = Hosts(self.fabric)
        self.readings = Readings(self.fabric.device)
        self.steps: StepTable | None = None
        self.events: SummaryWriter | None = None
        self.last_loss, self.saved_at = math.nan, time.monotonic()

    def score(self, held_out: Iterable[Any]) -> Evaluation:
        """Score the averaged model where there is one, with the running statistics of the first process, as saved."""
        model = _inner(self.model) if self.average is None else self.average.module
        if self.fabric.world_size > 1:
            for buffer in model.buffers():
                torch.distributed.broadcast(buffer, 0)
        with gathered(model):
            return self.evaluate(model, held_out)

    def resume(self, saved: dict[str, Any]) -> None:
        """Continue from a checkpoint of the folder, as it was read."""
        path = checkpoint_path(self.folder)
        try:
            load_model(self.model, saved["model"])
            load_optimizer(self.optimizer, saved["optimizer"])
            self.schedule.load_state_dict(saved["schedule"])
            self.fabric.strategy.precision.load_state_dict(saved["precision"])
            if self.average is not None:
                self.average.load_state_dict(saved["average"])
            self.state = State(**saved["state"])
        except (KeyError, TypeError) as error:
            raise InputError(f"{path}: not a checkpoint of this version ({error})") from None
        except (RuntimeError, ValueError) as error:
            raise InputError(f"{path} does not fit the network: {_first_difference(error)}") from None
        where = f", batch {self.state.batch}" if self.state.batch else ""
        logger.info(f"resuming after epoch {self.state.epoch}{where}")

    def fit(self) -> tuple[Evaluation, EpochTable]:
        """Train up to the last epoch; return its scores and the table of all epochs.

        Raises:
            Stopped: on request; a checkpoint has been written.
            InputError: non-finite losses or gradients, too many bad files, no memory left, a full disk.
        """
        state, epochs = self.state, self.config.train.epochs
        table = EpochTable(self.folder / "metrics.csv", state.epoch)
        steps = self.steps = StepTable(self.folder / "steps.csv", state.steps) if self.fabric.is_global_zero else None
        writer = self.events = SummaryWriter(self.folder / "tensorboard", purge_step=state.steps + 1) if steps else None
        evaluation, said = None, -math.inf
        if not state.steps and not state.epoch:
            self._save("last")  # a run that is killed in its first epoch can resume, too
        with self.stop.listening(), writer or nullcontext() as events, steps or nullcontext():
            while state.epoch < epochs and not self._given_up():
                row = {"epoch": state.epoch + 1, **self._train_epoch()}
                state.epoch, state.batch = state.epoch + 1, 0
                state.loss_sum, state.num_clips = 0.0, 0
                evaluation = None
                if state.epoch % self.config.eval.every_epochs == 0 or state.epoch == epochs:
                    evaluation = self.score(self.held_out)
                    self.skipped.add(evaluation.problems)
                    row |= evaluation.scores
                    self.schedule.report_loss(evaluation.scores["loss"])
                if events is not None:
                    table.add(row)
                    for name, value in row.items():
                        events.add_scalar(name, value, state.steps)
                self._save(*self._judge(row.get(self.primary)), "last")  # the best first: a kill loses neither
                if evaluation is not None or time.monotonic() - said >= _LINE_SECONDS:
                    said = time.monotonic()
                    logger.info(_epoch_line(row, epochs))
        return evaluation or self.score(self.held_out), table

    def _given_up(self) -> bool:
        limit = self.config.train.early_stopping
        if limit is None or self.state.not_better < limit:
            return False
        best = f"{self.primary} than in epoch {self.state.best_epoch}"
        logger.info(f"no better {best} for {limit} evaluations: training ends")
        return True

    def _judge(self, score: float | None) -> list[str]:
        """Record a score; return the name of the additional checkpoint to write, if it is the best."""
        state = self.state
        if score is None:
            return []
        if score > state.best_score:
            state.best_score, state.best_epoch, state.not_better = score, state.epoch, 0
            return ["best"]
        state.not_better += 1
        return []

    def _train_epoch(self) -> dict[str, float]:
        """Train for the rest of an epoch; returns its loss, clips per second, share of time spent waiting, memory."""
        state = self.state
        train_mode(_inner(self.model), self.facts["new_parameters"] if self.schedule.only_new else None)
        self.loader.set_epoch(state.epoch, state.batch)
        seen, started, idle = state.num_clips, time.perf_counter(), Idle(self.fabric.device)

        def text() -> str:
            done, seconds = state.num_clips - seen, time.perf_counter() - started
            speed = f"  loss {self.last_loss:.3f}  {done / seconds:.0f} clips/s" if done else ""
            return f"epoch {state.epoch + 1}/{self.config.train.epochs}{speed}"

        with ended(self.progress(self.loader, len(self.loader), text, state.batch)) as batches:
            for batch in batches:
                idle.ends()
                self.step(batch)
                idle.begins()
        self.read(everything=True)
        seconds = time.perf_counter() - started
        return {
            "train_loss": state.loss_sum / state.num_clips if state.num_clips else math.nan,
            "learning_rate": self.schedule.last_learning_rate,
            "clips_per_second": (state.num_clips - seen) / seconds,
            "waiting_share": idle.total() / seconds,
            "memory_gib": peak_memory_gib(self.fabric.device),
            "seconds": seconds,
        }

    def step(self, batch: Any) -> None:
        """One step of the optimiser, unless the run is asked to stop before it.

        A batch with too few samples for some process, and a loss or gradient that is not finite, change nothing. On a
        GPU the host does not wait: it learns of the latter one step later.
        """
        state = self.state
        due = time.monotonic() - self.saved_at > 60 * self.config.train.checkpoint_minutes
        own = (len(batch.targets), len(batch.targets) >= self.least, len(batch.problems), bool(self.stop.reason), due)
        total, ready, lost, wants_stop, wants_save = self.hosts.total([float(value) for value in own])
        if wants_stop or wants_save:
            self._pause(stop=wants_stop > 0)
        if lost:
            self.skipped.add(gather(self.fabric, batch.problems))
        state.steps += 1
        about = Step(state.steps, state.epoch + 1, state.batch + 1, self.schedule.learning_rate, total, batch.names)
        if ready == self.fabric.world_size:  # else the others would deadlock
            self.readings.add(self._learn(batch.inputs, batch.targets, total), about)
        elif state.steps % self.config.train.log_every == 0:
            self._log(about, math.nan)
        state.batch += 1
        self.schedule.step()
        self.read()

    def _learn(self, inputs: Tensor, targets: Tensor, total: float) -> Tensor:
        """Take a step on the samples of all processes; returns their mean loss and the gradient's norm, (2,)."""
        state, settings = self.state, self.config.train
        self.update.begin()
        self.optimizer.zero_grad()
        torch.manual_seed(hash((self.config.run.seed, state.epoch, state.batch, self.fabric.global_rank)))
        inputs = inputs.contiguous(memory_format=self.memory_format)
        pieces = (tensor.tensor_split(settings.accumulate) for tensor in (inputs, targets))
        parts = [part for part in zip(*pieces, strict=True) if len(part[0])]
        loss = torch.zeros((), device=inputs.device)
        try:
            for i, (x, y) in enumerate(parts):
                with self.fabric.no_backward_sync(self.model, enabled=i < len(parts) - 1):  # type: ignore[arg-type]
                    losses = self.loss(self.model(x), y)
                    self.fabric.backward(losses * (self.fabric.world_size / total))  # gradients are averaged
                loss += losses.detach().float() / total
        except (RuntimeError, ValueError) as error:
            raise advise(error, inputs, settings.accumulate) from error
        norm = self._clipped_norm()
        values = torch.stack([loss, torch.zeros_like(loss) if norm is None else norm.to(loss)])
        if self.fabric.world_size > 1:
            torch.distributed.all_reduce(values)
        self.update.take(self.optimizer.step, values.isfinite().all())
        return values

    def _clipped_norm(self) -> Tensor | None:
        """Clip the gradient where configured, and return its norm before clipping. A gradient scaler does its own
        checks, and skips steps while it searches for its scale: None then."""
        max_norm, norm = self.config.train.clip_grad_norm, None
        if max_norm is not None:
            norm = self.fabric.clip_gradients(self.model, self.optimizer, max_norm=max_norm, error_if_nonfinite=False)
        elif self.scaler is None:
            norm = get_total_norm([p.grad for p in self.model.parameters() if p.grad is not None])
        return whole(norm) if self.scaler is None else None

    def read(self, everything: bool = False) -> None:
        """Count and record the steps whose numbers have arrived, or, waiting for the device, all."""
        state = self.state
        for (loss, norm), step in self.readings.take(everything):
            self.last_loss = loss
            if math.isfinite(loss) and math.isfinite(norm):
                state.loss_sum += loss * step.num_clips
                state.num_clips += int(step.num_clips)
            else:
                self._bad_step("gradient is not finite" if math.isfinite(loss) else f"loss is {loss}", step)
            if step.number % self.config.train.log_every == 0:
                self._log(step, loss)

    def _log(self, step: "Step", loss: float) -> None:
        if self.steps is not None and self.events is not None:
            self.steps.add({"step": step.number, "loss": loss, "learning_rate": step.learning_rate})
            self.events.add_scalar("step_loss", loss, step.number)

    def _bad_step(self, what: str, step: "Step") -> None:
        """Record a step that would have corrupted the weights, up to the limit."""
        state, settings = self.state, self.config.train
        state.bad_steps += 1
        samples = ", ".join(gather(self.fabric, step.names)[:8])
        text = (
            f"the {what} in epoch {step.epoch}, batch {step.batch} "
            f"at learning rate {step.learning_rate:.3g} (samples: {samples}, …)"
        )
        if state.bad_steps > settings.max_bad_steps:
            clip = "set" if settings.clip_grad_norm is None else "lower"
            last = checkpoint_path(self.folder)
            raise InputError(
                f"{text}: lower train.learning_rate or {clip} train.clip_grad_norm"
                + (f"; a checkpoint from before is in {last.parent}" if last.exists() else "")
            )
        logger.warning(f"{text}; the step is skipped")

    def _pause(self, stop: bool) -> None:
        """Save, and stop if asked to. All processes agree."""
        self._save("last")
        if stop:
            signal, reason = self.stop.signal, self.stop.reason or "requested by another process"
            text = (
                f"stopped ({reason}) in epoch {self.state.epoch + 1} after batch {self.state.batch}; "
                f"resume with: cbam3d train --resume --run.dir {self.folder}"
            )
            raise Stopped(text if self.fabric.is_global_zero else "", 128 + signal.value if signal else 0)

    def _save(self, *names: str) -> None:
        self.read(everything=True)
        saved = {
            "model": self.model,
            "optimizer": self.optimizer,
            "schedule": self.schedule.state_dict(),
            "precision": self.fabric.strategy.precision.state_dict(),
            "average": None if self.average is None else self.average.state_dict(),
            "state": asdict(self.state),
            **self.facts,
        }
        for name in names:
            save_checkpoint(self.fabric, checkpoint_path(self.folder, name), saved)
        self.saved_at = time.monotonic()


def weights_of(saved: dict[str, Any]) -> dict[str, Tensor]:
    """The weights that a checkpoint's scores belong to: the averaged ones where there are any."""
    if saved.get("average") is None:
        return saved["model"]
    prefix = "module."
    return {key.removeprefix(prefix): value for key, value in saved["average"].items() if key.startswith(prefix)}


def _inner(model: nn.Module) -> nn.Module:
    """The network inside Fabric's and DDP's wrappers."""
    module = getattr(model, "module", model)
    return module.module if isinstance(module, nn.parallel.DistributedDataParallel) else module


def _first_difference(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    line = lines[1] if len(lines) > 1 else lines[0]
    return line if len(line) < 160 else line[:160] + "…"


def _epoch_line(row: dict[str, float], epochs: int) -> str:
    parts = [f"epoch {row['epoch']:>3.0f}/{epochs}", f"train loss {row['train_loss']:.3f}"]
    parts += [f"{name} {value:.1%}" for name, value in row.items() if "top" in name or "map" in name]
    parts += [f"{row['clips_per_second']:.0f} clips/s", f"waiting {row['waiting_share']:.0%}"]
    if left := row["seconds"] * (epochs - row["epoch"]):
        parts.append(f"about {tqdm.format_interval(left)} left")
    return "  ".join(parts)
