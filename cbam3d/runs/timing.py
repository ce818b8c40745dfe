"""Times of jobs that take turns, as a machine is seldom equally fast for long."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Times = dict[str, list[float]]
WARM_UP = 2  # rounds, in which memory is allocated and kernels are chosen


def take_turns(jobs: Mapping[str, Callable[[], object]], repeats: int, device: torch.device | str = "cpu") -> Times:
    """Seconds of each call of each job, `repeats` each, after some that warm up. The order alternates from round to
    round."""
    times: Times = {name: [] for name in jobs}
    for repeat in range(WARM_UP + repeats):
        for name in jobs if repeat % 2 else reversed(list(jobs)):
            begin = time.perf_counter()
            jobs[name]()
            if torch.device(device).type == "cuda":
                torch.cuda.synchronize(device)
            if repeat >= WARM_UP:
                times[name].append(time.perf_counter() - begin)
    return times


def medians(times: Times) -> dict[str, float]:
    """Median seconds of each job."""
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of first / second within a round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
