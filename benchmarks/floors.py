"""The arithmetic of attention blocks: their convolutions, matrix products and pooling alone, forward and backward.

    python benchmarks/floors.py [--mechanisms em_attention,sk,residual,sc,triplet] [--repeats 7]

What a block computes is recorded once and replayed, each operation on its own inputs: the floor for a block that leaves
out everything else (norms, activations, products, sums, maxima). That is bound by memory: "rest" is in units of copying
the features once. Medians over repeats that take turns, with `keep_freed_memory`, as in training.
"""

import argparse
from collections.abc import Callable
from typing import Any

import torch
from block import CLIP, copying, created, job
from tables import table
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cbam3d.data.malloc import keep_freed_memory
from cbam3d.runs.timing import medians, ratio, take_turns

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mechanisms", default="em_attention,sk,residual,sc,triplet")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    keep_freed_memory()
    rows = []
    for name in options.mechanisms.split(","):
        run = job(created(name, CLIP), CLIP, "cpu")
        times = take_turns({"block": run, "arithmetic": floor(run), "copy": copying(CLIP, "cpu")}, options.repeats)
        block, arithmetic, copy = medians(times).values()
        over = f"{ratio(times['block'], times['arithmetic']):.2f}"
        rows.append([name, f"{block * 1e3:.0f}", f"{arithmetic * 1e3:.0f}", over, f"{(block - arithmetic) / copy:.0f}"])
    table([f"at {CLIP}", "block, ms", "its arithmetic, ms", "ratio", "rest, copies"], rows)


if __name__ == "__main__":
    main()
