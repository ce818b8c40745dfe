"""This package's networks by name, with attention in the slots of their blocks."""

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn

from cbam3d.attention import create_attention, insert_attention
from cbam3d.attention.catalog import attention_options as options_of_attention
from cbam3d.errors import check_options
from cbam3d.models.cbam_cnn import CBAMCNN
from cbam3d.models.draw import DRAW
from cbam3d.models.fast_cnn import FastCNN
from cbam3d.models.ram import RAM
from cbam3d.models.resnet import DEPTHS, ResNet

# made for images; the last two read glimpses, and have no place for attention
_SMALL: dict[str, type[nn.Module]] = {"cbam_cnn": CBAMCNN, "fast_cnn": FastCNN, "draw": DRAW, "ram": RAM}
OURS = [*(f"resnet{depth}" for depth in DEPTHS), *_SMALL]


def attention_of(name: str, attention: str | None) -> str | None:
    """Resolve a mechanism's name: "none" is no attention, None the network's default."""
    if attention is None and name == "cbam_cnn":
        return "cbam"
    return None if attention == "none" else attention


def usual_ndim(name: str) -> int:
    """The default ndim of a network."""
    return 2 if name in _SMALL else 3


def chooses_what_it_reads(name: str) -> bool:
    """Whether a network sees glimpses: it has neither blocks nor feature maps of the whole input."""
    return "attention" not in inspect.signature(_constructor(name)).parameters


def network_options(name: str) -> set[str]:
    """The options of a network."""
    return set(inspect.signature(_constructor(name)).parameters) - {"num_classes", "ndim", "attention"}


def build_ours(
    name: str,
    num_classes: int,
    ndim: int,
    attention: str | None,
    attention_options: dict[str, Any],
    **options: Any,
) -> nn.Module:
    """Build a network.

    Raises:
        ValueError: an unknown option of the network or the mechanism, or an invalid value.
    """
    check_options(f"model {name!r}", options, network_options(name))
    if attention is None:
        return _constructor(name)(num_classes, ndim, **options)
    if chooses_what_it_reads(name):
        raise ValueError(f"{name} has no place for attention {attention!r}: it chooses what it reads")
    known = options_of_attention(attention)
    check_options(f"attention {attention!r}", attention_options, set(known))
    if "num_frames" not in known:
        slot = partial(create_attention, attention, ndim=ndim, **attention_options)
        return _constructor(name)(num_classes, ndim, attention=slot, **options)
    model = _constructor(name)(num_classes, ndim, **options)  # per-stage sizes are found with an example
    others = dict(attention_options)
    num_frames = others.pop("num_frames", None)
    if ndim != 3 or not isinstance(num_frames, int) or num_frames < 1:
        raise ValueError(f"attention {attention!r} needs clips, and num_frames of the network's input, at least 1")
    size = getattr(model, "size", (num_frames, 64, 64))
    example = torch.zeros(1, options.get("in_channels", 3), *size)
    return insert_attention(model, attention, example=example, **others)


def _constructor(name: str) -> Callable[..., nn.Module]:
    return _SMALL[name] if name in _SMALL else partial(ResNet, int(name.removeprefix("resnet")))
