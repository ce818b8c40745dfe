"""timm's networks of images, where timm is installed."""

from importlib import import_module
from typing import Any

from torch import nn

from cbam3d.errors import InputError, unknown
from cbam3d.models.libraries.rank import check_rank


def names() -> list[str]:
    """The first of them, so that a ResNet of theirs is found; any other name of timm works as well."""
    return ["resnet18", "resnet50", "resnet50d"]


def build(name: str, num_classes: int, ndim: int | None, **options: Any) -> nn.Module:
    """A network by name, without weights.

    Raises:
        InputError: timm is not installed.
    """
    try:
        timm = import_module("timm")
    except ImportError:
        raise InputError(f"timm/{name} needs timm: pip install timm") from None
    check_rank(f"timm/{name}", 2, ndim)
    if name not in timm.list_models():
        raise ValueError(unknown("model", name, timm.list_models()))
    return timm.create_model(name, num_classes=num_classes, **options)
