"""What the host learns late, and how long the device had nothing to do."""

import time
from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class Readings:
    """Numbers that the device computes in every step, read one step later on a GPU: the host never waits for work that
    it has just given to the device. On other devices they are read at once."""

    def __init__(self, device: torch.device) -> None:
        self.lag = 1 if device.type == "cuda" else 0
        self.pending: deque[tuple[Tensor, torch.cuda.Event | None, Any]] = deque()

    def add(self, values: Tensor, about: Any) -> None:
        """Note values, (K,), and what they are about."""
        if not self.lag:
            self.pending.append((values, None, about))
            return
        here = torch.empty_like(values, device="cpu", pin_memory=True).copy_(values, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        self.pending.append((here, arrived, about))

    def take(self, everything: bool = False) -> Iterator[tuple[list[float], Any]]:
        """Yield values and what they are about, in order, but for those of the last step on a GPU."""
        while len(self.pending) > (0 if everything else self.lag):
            values, arrived, about = self.pending.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield values.tolist(), about


class Idle:
    """Seconds in which the device had nothing to do between two steps: on a GPU by its own clock, elsewhere by ours."""

    def __init__(self, device: torch.device) -> None:
        self.by_events = device.type == "cuda"
        self.seconds = 0.0
        self.gaps: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()
        self.since: Any = self._now()

    def ends(self) -> None:
        """A step begins."""
        if not self.by_events:
            self.seconds += time.perf_counter() - self.since
            return
        self.gaps.append((self.since, self._now()))
        while self.gaps and self.gaps[0][1].query():
            self._count()

    def begins(self) -> None:
        """A step has been given to the device."""
        self.since = self._now()

    def total(self) -> float:
        """Seconds so far; waits for the device."""
        while self.gaps:
            self.gaps[0][1].synchronize()
            self._count()
        return self.seconds

    def _count(self) -> None:
        ended, began = self.gaps.popleft()
        self.seconds += ended.elapsed_time(began) / 1000

    def _now(self) -> Any:
        if not self.by_events:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event
