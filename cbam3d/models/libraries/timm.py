"""timm's networks for images, if timm is installed."""

from importlib import import_module
from typing import Any

from torch import nn

from cbam3d.errors import InputError, unknown


def names() -> list[str]:
    """A few ResNets as examples; any other timm name works as well."""
    return ["resnet18", "resnet50", "resnet50d"]


def rank(name: str) -> int:
    """All take images."""
    if name not in (known := _timm(name).list_models()):
        raise ValueError(unknown("model", name, known))
    return 2


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a network without weights."""
    return _timm(name).create_model(name, num_classes=num_classes, **options)


def scaling(name: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation of the input that timm's weights of this name want."""
    wanted = _timm(name).get_pretrained_cfg(name)
    return None if wanted is None else (tuple(wanted.mean), tuple(wanted.std))


def _timm(name: str) -> Any:
    try:
        return import_module("timm")
    except ImportError:
        raise InputError(f"timm/{name} needs timm: pip install timm") from None
