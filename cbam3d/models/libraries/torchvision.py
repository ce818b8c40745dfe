"""torchvision's classifiers for images and clips, and its pretrained weights by name."""

from functools import cache
from importlib import import_module
from typing import Any

from torch import nn

from cbam3d.errors import unknown
from cbam3d.models.libraries.own_input import OwnInput

_SEVERAL_OUTPUTS = ("googlenet", "inception_v3")  # while training; timm's inception_v3 has one


def _models() -> Any:
    """`torchvision.models`, whose import takes a second."""
    return import_module("torchvision.models")


@cache
def _by_rank() -> dict[int, list[str]]:
    models = _models()
    images = [name for name in models.list_models(module=models) if name not in _SEVERAL_OUTPUTS]
    return {2: images, 3: models.list_models(module=models.video)}


def names() -> list[str]:
    """The listed networks."""
    return [name for names in _by_rank().values() for name in names]


def rank(name: str) -> int:
    """2 for images, 3 for clips."""
    if name not in names():
        raise ValueError(unknown("model", f"torchvision/{name}", [f"torchvision/{one}" for one in names()]))
    return 2 if name in _by_rank()[2] else 3


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a network without weights."""
    return _models().get_model(name, weights=None, num_classes=num_classes, **options)


def find_weights(name: str, member: str) -> Any:
    """A network's weights by torchvision's name: "IMAGENET1K_V1", "DEFAULT".

    Raises:
        ValueError: the network has no such weights; the message suggests the closest.
    """
    members = _models().get_model_weights(name).__members__
    if member not in members:
        raise ValueError(unknown(f"weights of torchvision/{name}", member, members))
    return members[member]


def own_input(name: str, member: str | None) -> OwnInput:
    """Mean and standard deviation that torchvision's weights want, those of a name or the usual ones.

    Raises:
        ValueError: the network has no such weights.
    """
    if member is None and "DEFAULT" not in _models().get_model_weights(name).__members__:
        return OwnInput()
    wanted = find_weights(name, member or "DEFAULT").transforms()
    return OwnInput(tuple(wanted.mean), tuple(wanted.std))
