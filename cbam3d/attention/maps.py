"""Attention maps of a network for given inputs."""

from functools import partial
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cbam3d.attention.insertion.features import evaluating

Kind = Literal["channel", "spatial", "temporal"]


@torch.no_grad()
def attention_maps(model: nn.Module, inputs: Tensor) -> dict[str, dict[Kind, Tensor]]:
    """Return the maps by which each attention block multiplies its features, for these inputs.

    Args:
        model: any network with blocks of this package, in their slots or inserted; it runs in evaluation mode;
            its modes are then restored.
        inputs: the model's input.

    Returns: by the block's name in the network, in order of execution, up to three views: "channel" (N, C), "temporal"
        (N, T), and "spatial" (N, T, H, W), for images (N, H, W), all at the size of the block's features. The three
        gates of a CBAM are its three views. A map over both channels and positions (BAM, coordinate, triplet, …) gives
        its mean over channels as the spatial view; one over channels and frames (TAM), as the temporal view. Blocks
        without such a map (non-local, SK, …) are omitted.

    Examples:
        >>> from cbam3d import attention_maps, create_model
        >>> model = create_model("resnet10", 10, attention="cbam", width=16)
        >>> maps = attention_maps(model, torch.randn(1, 3, 8, 32, 32))
        >>> sorted(next(iter(maps.values())))
        ['channel', 'spatial', 'temporal']
    """
    blocks: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        has_maps = hasattr(module, "attention_map") or hasattr(module, "attention_maps")
        if has_maps and not any(name.startswith(outer and f"{outer}.") for outer in blocks):
            blocks[name] = module
    found: dict[str, dict[Kind, Tensor]] = {}

    def look(name: str, block: Any, given: tuple[Any, ...]) -> None:
        x = given[0]
        maps = block.attention_maps(x) if hasattr(block, "attention_maps") else None
        if not isinstance(maps, dict):
            maps = {"": block.attention_map(x)}
        fitting = {gate: one for gate, one in maps.items() if one.ndim == x.ndim and one.shape[1] in (1, x.shape[1])}
        if fitting:
            found[name] = dict(_view(gate, one.float(), x) for gate, one in fitting.items())

    handles = [block.register_forward_pre_hook(partial(look, name)) for name, block in blocks.items()]
    try:
        with evaluating(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def _view(gate: str, one: Tensor, x: Tensor) -> tuple[Kind, Tensor]:
    """Reduce a map broadcastable to x to its view of channels, frames or positions."""
    if gate == "spatial" or (gate != "temporal" and max(one.shape[-2:]) > 1):
        return "spatial", one.mean(1).expand(-1, *x.shape[2:])
    if gate == "temporal" or (x.ndim == 5 and one.shape[2] > 1):
        return "temporal", one.mean((1, 3, 4))
    return "channel", one.flatten(1)
