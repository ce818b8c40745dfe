"""What a network costs: multiply-adds, and the time of a training step beside another network's."""

import statistics
import time
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

ROUNDS = 12


def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """Of convolutions and matrix products in one forward pass; the model is left in evaluation mode."""
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(inputs)
    return counter.get_total_flops() // 2


def paired_steps(
    fabric: Fabric, first: nn.Module, second: nn.Module, inputs: Tensor, num_classes: int
) -> tuple[float, float]:
    """Seconds of a training step of each of two networks, and how they compare.

    The steps (forward, backward, SGD) are taken in turn on the same inputs, as machines are seldom equally fast for
    long.

    Args:
        fabric: decides device and precision.
        first: (N, C, *S) -> (N, num_classes).
        second: likewise.
        inputs: (N, C, *S).
        num_classes: size of the logits.

    Returns: median seconds of a step of the second network, and the median ratio of second to first.
    """
    inputs = inputs.to(fabric.device)
    labels = torch.arange(len(inputs), device=fabric.device) % num_classes
    steps = [_step(fabric, model, inputs, labels) for model in (first, second)]
    times: list[list[float]] = []
    for i in range(2 + ROUNDS):  # each goes first in every second round
        order = (0, 1) if i % 2 else (1, 0)
        taken = {place: _seconds(steps[place], fabric.device) for place in order}
        times.append([taken[0], taken[1]])
    measured = times[2:]  # the first steps allocate memory and choose kernels
    return statistics.median(b for _, b in measured), statistics.median(b / a for a, b in measured)


def _step(fabric: Fabric, model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    network, optimizer = fabric.setup(model.train(), torch.optim.SGD(model.parameters(), lr=1e-4))

    def step() -> None:
        loss = F.cross_entropy(network(inputs), labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step


def _seconds(step: Callable[[], None], device: torch.device) -> float:
    begin = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - begin
