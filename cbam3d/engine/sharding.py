"""Weights, gradients and the state of the optimiser divided among processes: fully sharded data parallel training
(https://arxiv.org/abs/2304.11277), by PyTorch's `fully_shard` and Fabric.

What is saved is whole, in the form of an undivided run, and either kind of run reads it.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning_fabric.strategies.model_parallel import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer
from torch.utils._pytree import tree_map


class Sharded(ModelParallelStrategy):
    """Fabric's strategy, with whole checkpoints.

    Args:
        num_processes: in all.
        timeout: how long they wait for each other.
    """

    def __init__(self, num_processes: int, timeout: timedelta) -> None:
        super().__init__(_shard, data_parallel_size=num_processes, tensor_parallel_size=1, timeout=timeout)

    def save_checkpoint(
        self, path: Any, state: dict[str, Any], storage_options: Any = None, filter: Any = None
    ) -> None:
        """Write the state on the first process; all take part."""
        saved = {
            key: whole(value.state_dict()) if hasattr(value, "state_dict") else value for key, value in state.items()
        }
        if self.is_global_zero:
            torch.save(saved, Path(path))


def _shard(model: nn.Module, mesh: DeviceMesh) -> nn.Module:
    """Divide a network: each element of its outermost lists of layers by itself, and then what is left."""
    for block in _blocks(model):
        if next(block.parameters(), None) is not None:
            fully_shard(block, mesh=mesh["data_parallel"])
    fully_shard(model, mesh=mesh["data_parallel"])
    return model


def _blocks(module: nn.Module) -> Iterator[nn.Module]:
    for child in module.children():
        yield from child.children() if isinstance(child, (nn.Sequential, nn.ModuleList)) else _blocks(child)


def whole(state: Any) -> Any:
    """Divided tensors, in a nested state, as whole ones; all processes take part."""
    return tree_map(lambda value: value.full_tensor() if isinstance(value, DTensor) else value, state)


def load_model(model: nn.Module, state: dict[str, Tensor]) -> None:
    """`load_state_dict` of a network that may be divided, from whole tensors."""
    own = model.state_dict()
    model.load_state_dict({key: _like(value, own.get(key)) for key, value in state.items()})


def load_optimizer(optimizer: Optimizer, state: dict[str, Any]) -> None:
    """`load_state_dict` of the optimiser of such a network."""
    own = dict(enumerate(parameter for group in optimizer.param_groups for parameter in group["params"]))
    divided = {
        number: {key: _like(value, own.get(number)) for key, value in entry.items()}
        for number, entry in state["state"].items()
    }
    optimizer.load_state_dict({**state, "state": divided})


def _like(value: Any, own: Any) -> Any:
    """A whole tensor, divided as another one of its shape is."""
    if not isinstance(own, DTensor) or not isinstance(value, Tensor) or value.shape != own.shape:
        return value
    return distribute_tensor(value.to(own.device), own.device_mesh, own.placements)


@contextmanager
def gathered(model: nn.Module) -> Iterator[None]:
    """Each process has the whole weights, and its forward passes need no other process."""
    parts = [module for module in model.modules() if isinstance(module, FSDPModule)]
    for part in parts:
        part.set_reshard_after_forward(False, recurse=False)
        part.unshard()
    try:
        yield
    finally:
        for i, part in enumerate(parts):
            part.set_reshard_after_forward(i > 0, recurse=False)  # as `fully_shard` does: not the network's own part
            part.reshard()
