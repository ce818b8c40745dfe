"""Learning-rate schedules: the maximum rate times a factor for warm-up and shape."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from torch.optim import Optimizer

Kind = Literal["cosine", "one_cycle", "multi_step", "plateau", "constant"]


class Schedule:
    """Sets the learning rate of all parameter groups, relative to the maximum of each.

    - cosine: a linear rise over the warm-up, then a half cosine to 0.
    - one_cycle: a half cosine from 1/25 to 1 over the warm-up, then one to 1/250,000 (https://arxiv.org/abs/1708.07120;
      the same as torch's OneCycleLR, without its momentum).
    - multi_step: times `gamma` at each milestone.
    - plateau: times `gamma` when the held-out loss has not improved by 0.01 % for more than `patience` reports
      (as torch's ReduceLROnPlateau).
    - constant.

    The last three rise over the warm-up as cosine does.

    Args:
        optimizer: its groups hold the maximum rates.
        kind: of the above.
        total_steps: of the whole training.
        warmup_steps: of the rise.
        milestones: steps, of multi_step.
        gamma: factor of multi_step and plateau.
        patience: of plateau.
        head_steps: steps in which only groups with the entry "new" are trained; the rate of the others is 0, and then
            rises over as many steps as the warm-up has.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        kind: Kind,
        total_steps: int,
        warmup_steps: int,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
        patience: int = 3,
        head_steps: int = 0,
    ) -> None:
        self.optimizer, self.kind, self.total_steps, self.warmup_steps = optimizer, kind, total_steps, warmup_steps
        self.milestones, self.gamma, self.patience = milestones, gamma, patience
        self.maximum = [group["lr"] for group in optimizer.param_groups]
        self.head_steps = head_steps
        self.waits = [not group.get("new", True) for group in optimizer.param_groups]
        self.taken = 0  # steps
        self.reduced, self.best, self.worse = 1.0, math.inf, 0
        self._set()

    @property
    def learning_rate(self) -> float:
        """The optimizer's own rate in the next step, to which those of its groups are relative."""
        return self.optimizer.defaults["lr"] * self.factor(self.taken)

    @property
    def last_learning_rate(self) -> float:
        """The same in the last step."""
        return self.optimizer.defaults["lr"] * self.factor(max(0, self.taken - 1))

    @property
    def only_new(self) -> bool:
        """Whether only the groups with the entry "new" are trained, for now."""
        return self.taken < self.head_steps

    def step(self) -> None:
        """A step was taken: set the rate of the next."""
        self.taken += 1
        self._set()

    def report_loss(self, loss: float) -> None:
        """Report the held-out loss."""
        if loss < self.best * (1 - 1e-4):
            self.best, self.worse = loss, 0
        else:
            self.worse += 1
        if self.kind == "plateau" and self.worse > self.patience:
            self.reduced, self.worse = self.reduced * self.gamma, 0
            self._set()

    def factor(self, step: int) -> float:
        """The factor of the maximum rate at a step, counted from 0."""
        warmup, total = self.warmup_steps, self.total_steps
        if self.kind == "one_cycle":
            top = max(warmup - 1, 1e-9)
            if step <= top:
                return _cosine(1 / 25, 1.0, step / top)
            return _cosine(1.0, 1 / 25 / 1e4, min(1.0, (step - top) / max(1e-9, total - 1 - top)))
        if step < warmup:
            return (step + 1) / (warmup + 1)
        if self.kind == "cosine":
            return _cosine(1.0, 0.0, min(1.0, (step - warmup) / max(1, total - warmup)))
        if self.kind == "multi_step":
            return self.gamma ** sum(step >= milestone for milestone in self.milestones)
        return self.reduced

    def state_dict(self) -> dict[str, Any]:
        return {"taken": self.taken, "reduced": self.reduced, "best": self.best, "worse": self.worse}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.taken, self.reduced = state["taken"], state["reduced"]
        self.best, self.worse = state["best"], state["worse"]
        self._set()

    def _set(self) -> None:
        factor, risen = self.factor(self.taken), self._risen(self.taken)
        for group, maximum, waits in zip(self.optimizer.param_groups, self.maximum, self.waits, strict=True):
            group["lr"] = maximum * factor * (risen if waits else 1.0)

    def _risen(self, step: int) -> float:
        """How far the rate of the groups that wait has risen at a step, 0 … 1."""
        if step < self.head_steps:
            return 0.0
        since = step - self.head_steps
        return 1.0 if self.head_steps == 0 else min(1.0, (since + 1) / (self.warmup_steps + 1))


def _cosine(start: float, end: float, position: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * position))
