"""timm's networks for images, if timm is installed."""

from importlib import import_module
from typing import Any

from torch import Tensor, nn

from cbam3d.errors import InputError, unknown
from cbam3d.models.libraries.own_input import OwnInput


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
    if named := {"checkpoint_path", "pretrained", "pretrained_cfg", "pretrained_cfg_overlay"} & options.keys():
        raise ValueError(f"timm/{name}: {named.pop()} is no option, weights are named apart")
    return _timm(name).create_model(name, num_classes=num_classes, **options)


def own_input(name: str, member: str | None) -> OwnInput:
    """Mean and standard deviation that timm's weights want, those of a tag or the usual ones.

    Raises:
        ValueError: the network has no such weights.
    """
    wanted = _timm(name).get_pretrained_cfg(name if member is None else _named(name, member))
    return OwnInput() if wanted is None else OwnInput(tuple(wanted.mean), tuple(wanted.std))


def find_weights(name: str, member: str) -> dict[str, Tensor]:
    """timm's weights: "pretrained", or the tag of one of several.

    Raises:
        ValueError: the network has no such weights.
        InputError: they cannot be downloaded.
    """
    timm, named = _timm(name), _named(name, member)
    try:
        return timm.create_model(named, pretrained=True).state_dict()
    except Exception as error:  # of many types: no network, no access
        config = timm.get_pretrained_cfg(name)
        source = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"weights of timm/{name} cannot be downloaded ({reason}): download model.safetensors from {source} "
            "elsewhere, and give the file"
        ) from None


def _named(name: str, member: str) -> str:
    """What timm calls a network with these weights."""
    tags = [one.partition(".")[2] for one in _timm(name).list_models(f"{name}.*", pretrained=True)]
    if member not in (known := ["pretrained", *filter(None, tags)]):
        raise ValueError(unknown(f"weights of timm/{name}", member, known))
    return name if member == "pretrained" else f"{name}.{member}"


def _timm(name: str) -> Any:
    try:
        return import_module("timm")
    except ImportError:
        raise InputError(f'timm/{name} needs timm: pip install "cbam3d[timm]"') from None
