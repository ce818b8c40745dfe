"""What a network costs: parameters, multiply-adds, and the time of a training step."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from cbam3d.engine.losses import Loss
from cbam3d.runs.network import count_parameters
from cbam3d.runs.timing import medians, ratio, take_turns

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
    times = take_turns({"step": training_step(fabric, model, inputs, num_classes)}, ROUNDS, fabric.device)
    model.to(device).load_state_dict(before)
    model.train(training)
    return Cost(count_parameters(model), operations, medians(times)["step"])


def multiply_adds(model: nn.Module, inputs: Tensor) -> int:
    """Of convolutions and matrix products in one forward pass; the model is left in evaluation mode."""
    model.eval()
    # fused attention, and a transformer's fast path without gradients, are not counted
    with sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(inputs)
    return counter.get_total_flops() // 2


def paired_steps(first: Callable[[], None], second: Callable[[], None], device: torch.device) -> tuple[float, float]:
    """Compare two training steps, taken in turn.

    Args:
        first: see `training_step`.
        second: likewise.
        device: where both compute.

    Returns: median seconds of the second step, and the median ratio of second to first.
    """
    times = take_turns({"first": first, "second": second}, ROUNDS, device)
    return medians(times)["second"], ratio(times["second"], times["first"])


def training_step(fabric: Fabric, model: nn.Module, inputs: Tensor, num_classes: int) -> Callable[[], None]:
    """A step on the same batch each time: forward, backward, SGD.

    Args:
        fabric: decides device and precision.
        model: (N, C, *S) -> (N, K).
        inputs: (N, C, *S).
        num_classes: labels are of so many classes, at most K.
    """
    inputs = inputs.to(fabric.device)
    labels = torch.arange(len(inputs), device=fabric.device) % num_classes
    network, optimizer = fabric.setup(model.train(), torch.optim.SGD(model.parameters(), lr=1e-4))

    def step() -> None:
        loss = Loss()(network(inputs), labels) / len(labels)
        fabric.backward(loss)
        optimizer.step()
        optimizer.zero_grad()

    return step
