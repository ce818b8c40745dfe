"""An image network on clips: what `FrameNetwork` and attention in it cost, beside a plain loop of that network.

    python benchmarks/frames.py [--name torchvision/resnet18] [--batch-size 4] [--frames 8] [--size 112] [--device cuda]

Forward and backward of clips (N, 3, T, H, W); the plain loop reshapes to N·T images, runs the network and averages the
logits itself. Medians over steps taken in turn.
"""

import argparse
from collections.abc import Callable

import torch
from tables import table
from torch import nn
from torch.nn import functional as F

from cbam3d import create_model
from cbam3d.attention import attention_options
from cbam3d.data.malloc import keep_freed_memory
from cbam3d.runs.timing import medians, ratio, take_turns

CLASSES = 101


class Loop(nn.Module):
    """The plain loop."""

    def __init__(self, images: nn.Module) -> None:
        super().__init__()
        self.images = images

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, c, t, h, w = x.shape
        return self.images(x.transpose(1, 2).reshape(n * t, c, h, w)).view(n, t, -1).mean(1)


def main() -> None:
    parser = argparse.ArgumentParser(description="Image networks on clips, compared")
    parser.add_argument("--name", default="torchvision/resnet18")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=4)
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--size", type=int, default=112)
    parser.add_argument("--repeats", type=int, default=11)
    given = parser.parse_args()
    if given.device == "cpu":
        keep_freed_memory()
    x = torch.randn(given.batch_size, 3, given.frames, given.size, given.size, device=given.device)
    labels = torch.randint(0, CLASSES, (given.batch_size,), device=given.device)
    models: dict[str, nn.Module] = {
        "plain loop over the frames": Loop(create_model(given.name, CLASSES, ndim=2, attention="none")),
        "frames": create_model(given.name, CLASSES, ndim=3, as_video="frames", attention="none"),
    }
    for mechanism in ("tsm", "tam", "cbam", "tea"):
        options = {"num_frames": given.frames} if "num_frames" in attention_options(mechanism) else {}
        models[f"frames with {mechanism}"] = create_model(
            given.name, CLASSES, ndim=3, as_video="frames", attention=mechanism, attention_options=options
        )

    def job(model: nn.Module) -> Callable[[], None]:
        model.to(given.device).train()

        def step() -> None:
            F.cross_entropy(model(x), labels).backward()
            model.zero_grad()

        return step

    times = take_turns({name: job(model) for name, model in models.items()}, given.repeats, given.device)
    plain = times["plain loop over the frames"]
    rows = [
        [name, f"{given.batch_size / seconds:.2f}", f"{ratio(plain, times[name]):.1%}"]
        for name, seconds in medians(times).items()
    ]
    shape = f"{given.batch_size} clips of {given.frames}x{given.size}x{given.size}"
    table([f"{given.name}, {shape}, {given.device}", "clips/s", "of the plain loop's"], rows)


if __name__ == "__main__":
    main()
