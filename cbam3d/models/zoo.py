"""Every network by name."""

import inspect
from functools import partial
from typing import Any

from torch import nn

from cbam3d.attention import create_attention
from cbam3d.errors import unknown
from cbam3d.models.resnet import DEPTHS, ResNet


def list_models() -> list[str]:
    """The names that `create_model` knows."""
    return [f"resnet{depth}" for depth in DEPTHS]


def create_model(
    name: str,
    num_classes: int,
    ndim: int = 3,
    attention: str | None = None,
    attention_options: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `list_models()`.
        num_classes: size of the logits.
        ndim: 2 for images, 3 for clips.
        attention: one of `list_attentions()`, put into every residual branch; None for a plain network.
        attention_options: keyword arguments of the mechanism.
        options: keyword arguments of the network (`ResNet`'s width, stem_pool, …).

    Raises:
        ValueError: an unknown name or option (the nearest known one is named), or a refused value.
    """
    if name not in list_models():
        raise ValueError(unknown("model", name, list_models()))
    known = set(inspect.signature(ResNet).parameters) - {"depth", "num_classes", "ndim", "attention"}
    for option in options:
        if option not in known:
            raise ValueError(unknown(f"option of model {name!r}", option, known))
    slot = None
    if attention is not None:
        slot = partial(create_attention, attention, ndim=ndim, **(attention_options or {}))
    elif attention_options:
        raise ValueError(f"attention_options without attention: {', '.join(attention_options)}")
    return ResNet(int(name.removeprefix("resnet")), num_classes, ndim, attention=slot, **options)
