"""How the benchmarks measure: jobs take turns, as a machine is seldom equally fast for long."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Times = dict[str, list[float]]


def take_turns(jobs: Mapping[str, Callable[[], object]], repeats: int, device: str = "cpu", warm_up: int = 2) -> Times:
    """Seconds of each call of each job, `repeats` each.

    The order alternates from round to round; the first `warm_up` rounds, in which memory is allocated and kernels are
    chosen, are not counted.
    """
    times: Times = {name: [] for name in jobs}
    for repeat in range(warm_up + repeats):
        for name in jobs if repeat % 2 else reversed(list(jobs)):
            begin = time.perf_counter()
            jobs[name]()
            if device.startswith("cuda"):
                torch.cuda.synchronize()
            if repeat >= warm_up:
                times[name].append(time.perf_counter() - begin)
    return times


def medians(times: Times) -> dict[str, float]:
    """Median seconds of each job."""
    return {name: statistics.median(values) for name, values in times.items()}


def ratio(first: Sequence[float], second: Sequence[float]) -> float:
    """The median of first / second within a round."""
    return statistics.median(a / b for a, b in zip(first, second, strict=True))
