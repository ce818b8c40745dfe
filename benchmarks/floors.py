"""The arithmetic of attention blocks: their convolutions, matrix products and pooling alone, forward and backward.

    python benchmarks/floors.py [--mechanisms em_attention,sk,residual,sc,triplet] [--repeats 7]

What a block computes is recorded once and replayed, each operation on its own inputs: the floor for a block that leaves
out everything else (norms, activations, products, sums, maxima). That is bound by memory: "rest" is in units of copying
the features once. Medians over repeats that take turns.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
from block import CLIP, copying, job
from tables import table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cbam3d import create_attention

ARITHMETIC = ("convolution", "convolve_planes", "mm", "addmm", "bmm", "baddbmm", "max_pool", "avg_pool", "upsample")


class Recorder(TorchDispatchMode):
    """Keeps the arithmetic of a pass, and its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[Callable[[], Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.removesuffix("_backward").rstrip("0123456789d_").startswith(ARITHMETIC):
            kept = tree_map(lambda one: one.detach() if isinstance(one, Tensor) else one, (args, kwargs or {}))
            self.calls.append(lambda: func(*kept[0], **kept[1]))
        return out


def floor(run: Callable[[], None]) -> Callable[[], None]:
    """The arithmetic of a pass."""
    with Recorder() as recorder:
        run()

    @torch.no_grad()
    def replay() -> None:
        for call in recorder.calls:
            call()

    return replay


def seconds(run: Callable[[], None]) -> float:
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mechanisms", default="em_attention,sk,residual,sc,triplet")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    rows = []
    for name in options.mechanisms.split(","):
        run = job(create_attention(name, CLIP[1], ndim=3), CLIP, torch.device("cpu"))
        replay = floor(run)
        jobs = (run, replay, copying(CLIP, torch.device("cpu")))
        times = [[seconds(each) for each in jobs] for _ in range(options.repeats + 1)][1:]
        block, arithmetic, copy = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(one / other for one, other, _ in times)
        rest = f"{(block - arithmetic) / copy:.0f}"
        rows.append([name, f"{block * 1e3:.0f}", f"{arithmetic * 1e3:.0f}", f"{ratio:.2f}", rest])
    table([f"at {CLIP}", "block, ms", "its arithmetic, ms", "ratio", "rest, copies"], rows)


if __name__ == "__main__":
    main()
