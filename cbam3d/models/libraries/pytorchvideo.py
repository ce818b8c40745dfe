"""PyTorchVideo's networks for clips."""

import warnings
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.errors import unknown
from cbam3d.models.libraries.own_input import OwnInput

_NAMES = ["slow_r50", "slowfast_r50", "x3d_xs", "x3d_s", "x3d_m", "r2plus1d_r50", "csn_r101"]


def names() -> list[str]:
    """The listed networks."""
    return _NAMES


def rank(name: str) -> int:
    """All take clips."""
    if name not in _NAMES:
        raise ValueError(unknown("model", f"pytorchvideo/{name}", [f"pytorchvideo/{one}" for one in _NAMES]))
    return 3


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a network without weights, whose outputs are logits; SlowFast takes a clip like the others."""
    if name.startswith(("x3d", "r2plus1d")):  # their heads end in a softmax
        options = {"head_activation": None, **options}
    with warnings.catch_warnings():  # its last release uses what PyTorch has since deprecated
        warnings.simplefilter("ignore")
        hub = import_module("pytorchvideo.models.hub")
        model = getattr(hub, name)(pretrained=False, model_num_class=num_classes, **options)
    if name.startswith("slowfast"):
        model._pathways_handle = model.register_forward_pre_hook(_to_pathways)
    return model


def _to_pathways(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """SlowFast's two pathways from one clip: a fourth of the frames, from the first to the last, and all of them. A
    list is unchanged."""
    (clip,) = inputs
    if not isinstance(clip, Tensor):
        return inputs
    count = clip.shape[2]
    chosen = torch.linspace(0, count - 1, max(1, count // 4), device=clip.device).long()
    return ([clip.index_select(2, chosen), clip],)


def own_input(name: str, member: str | None) -> OwnInput:
    """The scaling of all weights in PyTorchVideo's and PySlowFast's model zoos."""
    return OwnInput(mean=(0.45, 0.45, 0.45), std=(0.225, 0.225, 0.225))


def find_weights(name: str, member: str) -> Any:
    """There are none by name."""
    raise ValueError(f"pytorchvideo/{name} has no named weights, got {member!r}: give a file")
