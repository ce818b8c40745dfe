"""What a network costs: parameters, multiply-adds, and the time of a training step."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cbam3d.engine.losses import Loss
from cbam3d.runs.network import count_parameters

ROUNDS = 12


@dataclass(frozen=True)
class Cost:
    """What a network costs."""

    num_parameters: int
    multiply_adds: int  # of one input
    step_seconds: float  # of a training step: forward, backward, SGD


def measure_cost(model: nn.Module, shape: Sequence[int], num_classes: int = 10, fabric: Fabric | None = None) -> Cost:
    """Measure a network.

    Args:
        model: (N, C, *S) -> (N, K); it takes a few steps of SGD on noise, and its weights are put back.
        shape: (N, C, *S) of a batch.
        num_classes: labels are drawn from so many classes, at most K.
        fabric: decides device and precision; None for the CPU in float32.

    Examples:
        >>> import cbam3d
        >>> cost = cbam3d.measure_cost(cbam3d.ResNet(10, num_classes=10, width=8), (2, 3, 8, 32, 32))
        >>> cost.num_parameters
        228770
    """
    fabric = Fabric(accelerator="cpu") if fabric is None else fabric
    inputs, device = torch.randn(*shape), next(model.parameters(), torch.empty(0)).device
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = model.training
    operations = multiply_adds(model, inputs[:1].to(device))
    seconds = statistics.median(_times(fabric, [model], inputs, num_classes)[0])
    model.to(device).load_state_dict(before)
    model.train(training)
    return Cost(count_parameters(model), operations, seconds)


def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """Of convolutions and matrix products in one forward pass; the model is left in evaluation mode."""
    model.eval()
    # fused attention, and a transformer's fast path without gradients, are not counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
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
    a, b = _times(fabric, [first, second], inputs, num_classes)
    return statistics.median(b), statistics.median(y / x for x, y in zip(a, b, strict=True))


def _times(fabric: Fabric, models: Sequence[nn.Module], inputs: Tensor, num_classes: int) -> list[list[float]]:
    """Seconds of each step of each network, the steps taken in turn."""
    inputs = inputs.to(fabric.device)
    labels = torch.arange(len(inputs), device=fabric.device) % num_classes
    steps = [_step(fabric, model, inputs, labels) for model in models]
    times: list[list[float]] = [[] for _ in models]
    for i in range(2 + ROUNDS):
        order = range(len(models)) if i % 2 else reversed(range(len(models)))  # each goes first in every second round
        for number in order:
            seconds = _seconds(steps[number], fabric.device)
            if i >= 2:  # the first steps allocate memory and choose kernels
                times[number].append(seconds)
    return times


def _step(fabric: Fabric, model: nn.Module, inputs: Tensor, labels: Tensor) -> Callable[[], None]:
    network, optimizer = fabric.setup(model.train(), torch.optim.SGD(model.parameters(), lr=1e-4))

    def step() -> None:
        loss = Loss()(network(inputs), labels) / len(labels)
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
