"""Our training step against a bare PyTorch loop of the same network and batch, and what attention adds to it.

    python benchmarks/train_step.py [--device cuda] [--batch-size 8] [--frames 16] [--size 112]

r3d_18 on random clips; clips a second, medians over steps that take turns, all with the settings of memory and matrix
products that training has. "usual port": the CBAM block of most repositories, with separate pooling passes, a
concatenation and two products. On CUDA also bf16, channels_last_3d and torch.compile.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tables import table
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.video import r3d_18
from usual import UsualCBAM

from cbam3d import insert_attention
from cbam3d.config import load_config
from cbam3d.data.loader import Batch
from cbam3d.engine.losses import Loss
from cbam3d.engine.optim import create_optimizer
from cbam3d.engine.records import SkippedFiles
from cbam3d.engine.schedule import Schedule
from cbam3d.engine.train import Trainer
from cbam3d.runs.processes import create_fabric
from cbam3d.runs.timing import medians, ratio, take_turns

CLASSES = 101


class UsualBlock(nn.Module):
    """A residual block of torchvision with the port at the end of its branch."""

    def __init__(self, block: Any, channels: int) -> None:
        super().__init__()
        self.block, self.attention = block, UsualCBAM(channels)

    def forward(self, x: Tensor) -> Tensor:
        branch = self.attention(self.block.conv2(self.block.conv1(x)))
        rest = x if self.block.downsample is None else self.block.downsample(x)
        return F.relu(branch + rest)


def with_usual_port() -> nn.Module:
    model = r3d_18(num_classes=CLASSES)
    for i, channels in enumerate((64, 128, 256, 512), 1):
        layer = getattr(model, f"layer{i}")
        setattr(model, f"layer{i}", nn.Sequential(*(UsualBlock(block, channels) for block in layer)))
    return model


def with_ours() -> nn.Module:
    model = r3d_18(num_classes=CLASSES)
    return insert_attention(model, "cbam", position="residual", gates=("channel", "spatial"))


@dataclass
class Case:
    """A network and how it is run."""

    name: str
    build: Callable[[], nn.Module]
    precision: str = "32-true"
    channels_last: bool = False
    compiled: bool = False


def bare(case: Case, batch: Batch, device: str) -> Callable[[], None]:
    model = case.build().to(device)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, 0.9, weight_decay=1e-4, nesterov=True)
    model.train()

    def step() -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(batch.inputs), batch.targets).backward()
        optimizer.step()

    return step


def ours(case: Case, batch: Batch, device: str, folder: Path) -> Callable[[], None]:
    fabric, config = create_fabric(load_config({"run.accelerator": device, "run.precision": case.precision}))
    model = case.build()
    layout = torch.channels_last_3d if case.channels_last else torch.contiguous_format
    model.to(memory_format=layout)  # type: ignore[call-overload]
    optimizer = create_optimizer(model, "sgd", 0.01, 1e-4, {"momentum": 0.9, "nesterov": True})
    schedule = Schedule(optimizer, "cosine", 100_000, 0)
    if case.compiled:
        model.compile()
    model, optimizer = fabric.setup(model, optimizer)
    trainer = Trainer(
        fabric,
        model,
        optimizer,
        schedule,
        [],  # type: ignore[arg-type]
        [],
        lambda scored, held_out: None,  # type: ignore[arg-type, return-value]
        folder,
        SkippedFiles(folder / "skipped.csv", 0),
        config,
        {},
        Loss(),
        memory_format=layout,
    )
    model.train()

    def step() -> None:
        trainer.step(batch)

    return step


def main() -> None:
    parser = argparse.ArgumentParser(description="A training step, compared")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=7)
    given = parser.parse_args()
    device, n = given.device, given.batch_size
    inputs = torch.randn(n, 3, given.frames, given.size, given.size, device=device)
    labels = torch.randint(0, CLASSES, (n,), device=device)
    batch = Batch(inputs, labels, labels, [""] * n, [])
    plain = Case("r3d_18", lambda: r3d_18(num_classes=CLASSES))
    cases = [plain, Case("with the usual port", with_usual_port), Case("with ours", with_ours)]
    if device == "cuda":
        for name, build in (("r3d_18", plain.build), ("with ours", with_ours)):
            cases.append(Case(f"{name}, bf16", build, "bf16-mixed"))
            cases.append(Case(f"{name}, bf16, channels_last_3d", build, "bf16-mixed", True))
            cases.append(Case(f"{name}, bf16, channels_last_3d, compiled", build, "bf16-mixed", True, True))
    with tempfile.TemporaryDirectory() as folder:
        steps = {"r3d_18, bare loop": bare(plain, batch, device)}
        steps |= {case.name: ours(case, batch, device, Path(folder)) for case in cases}
        times = take_turns(steps, given.repeats, device)
    shape, threads = f"{given.frames}x{given.size}x{given.size}", torch.get_num_threads()
    against = [times["r3d_18, bare loop"], times["r3d_18"]]
    rows = [
        [name, f"{n / seconds:.2f}", *(f"{ratio(other, times[name]):.1%}" for other in against)]
        for name, seconds in medians(times).items()
    ]
    what = f"{given.batch_size} clips of {shape}, {device}, {threads} threads"
    table([what, "clips/s", "of the bare loop's", "of r3d_18's in our loop"], rows)


if __name__ == "__main__":
    main()
