"""Attention blocks, forward and backward: against the usual port, torch.compile of it, timm, and the memory's speed.

    python benchmarks/block.py [--device cuda] [--repeats 7] [--figure docs/growth.png] [--mechanisms se,san]

Medians over repeats that take turns, on a CPU with `keep_freed_memory`, as in training. "copies": the time in units of
copying the features once. "saves": memory kept for the backward pass, in units of the features. "peak": how much a
process grows by one pass. Our CBAM has the channel and the spatial gate here, with the port's 7x7(x7) kernel; the
default kernel of cbam3d in clips is 1x7x7.
"""

import argparse
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from tables import table
from timm.layers.create_attn import create_attn
from torch import Tensor, nn
from usual import UsualCBAM

from cbam3d import CBAM, create_attention, list_attentions
from cbam3d.attention import attention_options
from cbam3d.data.malloc import keep_freed_memory
from cbam3d.engine.memory import peak_memory_gib
from cbam3d.runs.timing import medians, ratio, take_turns

CLIP = (4, 64, 16, 56, 56)
SMALL = (2, 64, 8, 14, 14)  # for what compares all positions with all
ALL_PAIRS = ("non_local", "self_attention", "rga", "criss_cross")
MIDDLE = (2, 64, 8, 28, 28)  # for what weighs the positions of a window one by one
WINDOWED = ("sasa", "san", "deformable")
SHAPES = {
    "resnet18 3D, layer1": (4, 64, 16, 56, 56),
    "resnet18 3D, layer2": (4, 128, 8, 28, 28),
    "resnet18 3D, layer3": (4, 256, 4, 14, 14),
    "resnet18 3D, layer4": (4, 512, 2, 7, 7),
    "resnet50 3D, layer1": (2, 256, 16, 28, 28),
    "resnet50 3D, layer2": (2, 512, 8, 14, 14),
    "resnet50 3D, layer3": (2, 1024, 4, 7, 7),
    "resnet50 3D, layer4": (2, 2048, 2, 4, 4),
    "CIFAR, block 1": (128, 64, 32, 32),
    "CIFAR, block 2": (128, 128, 16, 16),
    "CIFAR, block 3": (128, 256, 8, 8),
    "ImageNet, layer1": (16, 256, 56, 56),
    "ImageNet, layer2": (16, 512, 28, 28),
    "ImageNet, layer3": (16, 1024, 14, 14),
    "ImageNet, layer4": (16, 2048, 7, 7),
}


def ours(shape: tuple[int, ...]) -> nn.Module:
    return CBAM(shape[1], kernel_size=7, gates=("channel", "spatial"), ndim=len(shape) - 2)


def created(name: str, shape: tuple[int, ...]) -> nn.Module:
    """A mechanism for features of this shape."""
    options = {"num_frames": shape[2]} if "num_frames" in attention_options(name) else {}
    return create_attention(name, shape[1], ndim=len(shape) - 2, **options)


def job(block: nn.Module, shape: tuple[int, ...], device: str) -> Callable[[], None]:
    """One forward and backward pass."""
    block = block.to(device).train()
    x, grad = torch.randn(shape, device=device, requires_grad=True), torch.randn(shape, device=device)

    def run() -> None:
        block(x).backward(grad)
        x.grad = None

    return run


def copying(shape: tuple[int, ...], device: str) -> Callable[[], object]:
    x = torch.randn(shape, device=device)
    out = torch.empty_like(x)
    return lambda: out.copy_(x)


def saved(block: nn.Module, shape: tuple[int, ...]) -> float:
    """What a forward pass keeps, without the block's own parameters, over the size of the features."""
    x = torch.randn(shape, requires_grad=True)
    own = {p.untyped_storage().data_ptr() for p in block.parameters()}
    sizes: dict[int, int] = {}
    kept: list[Tensor] = []

    def note(tensor: Tensor) -> Tensor:
        if tensor.untyped_storage().data_ptr() not in own:
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            kept.append(tensor)  # no address may be used twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        block.cpu()(x)
    return sum(sizes.values()) / x.untyped_storage().nbytes()


def shapes(device: str, repeats: int) -> None:
    rows = []
    for name, shape in SHAPES.items():
        torch.compiler.reset()
        port, compiled = UsualCBAM(shape[1], len(shape) - 2), torch.compile(UsualCBAM(shape[1], len(shape) - 2))
        blocks: dict[str, Any] = {"usual": port, "compiled": compiled, "ours": ours(shape)}
        blocks["ours compiled"] = torch.compile(ours(shape))
        jobs = {key: job(block, shape, device) for key, block in blocks.items()}
        times = take_turns({**jobs, "copy": copying(shape, device)}, repeats, device)
        pairs = (("ours", "usual"), ("ours compiled", "compiled"))
        ratios = [f"{ratio(times[one], times[other]):.2f}" for one, other in pairs]
        ratios.append(f"{ratio(times['ours'], times['copy']):.0f}")
        found = medians(times)
        kept = [f"{saved(blocks[key], shape):.2f}" for key in ("usual", "ours")]
        numbers = [f"{1000 * found[key]:.1f}" for key in blocks]
        rows.append([f"{name} {tuple(shape)}", *numbers, *ratios, *kept])
    ways = [*(f"{key}, ms" for key in ("usual", "usual compiled", "ours", "ours compiled"))]
    ways += ["ours / usual", "compiled: ours / usual", "ours, copies"]
    table(["CBAM at", *ways, "usual saves", "ours saves"], rows)


def mechanisms(device: str, repeats: int, names: list[str]) -> None:
    rows = []
    for name in names:
        shape = SMALL if name in ALL_PAIRS else MIDDLE if name in WINDOWED else CLIP
        block = created(name, shape)
        jobs = {"ours": job(block, shape, device), "usual": job(UsualCBAM(shape[1]), shape, device)}
        times = take_turns({**jobs, "copy": copying(shape, device)}, repeats, device)
        ratios = [f"{ratio(times['ours'], times['usual']):.2f}", f"{ratio(times['ours'], times['copy']):.0f}"]
        numbers = [f"{1000 * medians(times)['ours']:.1f}", *ratios]
        rows.append([f"{name} {shape}", *numbers, f"{saved(block, shape):.2f}", f"{peak_of(name, shape):.2f}"])
    table(["mechanism at", "ms", "/ usual CBAM", "copies", "saves", "peak, GiB"], rows)


def peak_of(name: str, shape: tuple[int, ...]) -> float:
    """GiB that a forward and backward pass on a CPU needs at most, in a process of its own."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as process:
        return process.submit(_grown, name, shape).result()


def _grown(name: str, shape: tuple[int, ...]) -> float:
    run = job(created(name, shape), shape, "cpu")
    before = peak_memory_gib(torch.device("cpu"))
    run()
    return peak_memory_gib(torch.device("cpu")) - before


def against_timm(device: str, repeats: int) -> None:
    rows = []
    for ours_name, timms in (("se", "se"), ("eca", "eca"), ("cbam", "cbam")):
        for shape in (SHAPES["ImageNet, layer1"], SHAPES["ImageNet, layer3"]):
            one, other = create_attention(ours_name, shape[1], ndim=2), create_attn(timms, shape[1])
            assert other is not None
            jobs = {"timm": job(other, shape, device), "ours": job(one, shape, device)}
            times = take_turns(jobs, repeats, device)
            numbers = [f"{1000 * seconds:.1f}" for seconds in medians(times).values()]
            rows.append([f"{ours_name} {shape}", *numbers, f"{ratio(times['ours'], times['timm']):.2f}"])
    table(["images", "timm, ms", "ours, ms", "ratio"], rows)


def growth(device: str, repeats: int, path: Path) -> None:
    """How the cost grows with frames, positions and channels."""
    base = {"frames T": (2, 64, 8, 28, 28), "side H = W": (2, 64, 8, 28, 28), "channels C": (2, 64, 8, 28, 28)}
    steps = {"frames T": (2, 4, 8, 16, 32), "side H = W": (14, 28, 42, 56), "channels C": (16, 64, 128, 256)}
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for axes, (what, (n, c, t, h, w)) in zip(figure.subplots(1, 3), base.items(), strict=True):
        curves: dict[str, list[float]] = {"usual port": [], "ours": []}
        for value in steps[what]:
            shape = {"f": (n, c, value, h, w), "s": (n, c, t, value, value), "c": (n, value, t, h, w)}[what[0]]
            jobs = {"usual port": job(UsualCBAM(shape[1]), shape, device), "ours": job(ours(shape), shape, device)}
            for name, seconds in medians(take_turns(jobs, repeats, device)).items():
                curves[name].append(1000 * seconds)
        for name, values in curves.items():
            axes.plot(steps[what], values, marker="o", label=name)
        axes.set(xlabel=what, ylabel="forward and backward, ms", ylim=(0, None))
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=100)


def main() -> None:
    parser = argparse.ArgumentParser(description="Attention blocks, compared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--figure", type=Path, help="draw how the cost grows into this PNG")
    parser.add_argument("--mechanisms", help="only these, separated by commas, and nothing else")
    given = parser.parse_args()
    if given.device == "cpu":
        keep_freed_memory()
    if given.mechanisms:
        mechanisms(given.device, given.repeats, given.mechanisms.split(","))
        return
    shapes(given.device, given.repeats)
    mechanisms(given.device, given.repeats, list_attentions())
    against_timm(given.device, given.repeats)
    if given.figure:
        growth(given.device, given.repeats, given.figure)


if __name__ == "__main__":
    main()
