"""Every head by name."""

import inspect
from typing import Any

from torch import nn

from cbam3d.attention.gate import positive
from cbam3d.attention.heads.csra import CSRA
from cbam3d.attention.heads.gltr import GLTR
from cbam3d.attention.heads.mean import MeanHead
from cbam3d.attention.heads.pooling import AttentionPooling
from cbam3d.attention.heads.rstan import RSTAN
from cbam3d.attention.heads.sta import STA
from cbam3d.attention.heads.statistics import StatisticsHead
from cbam3d.attention.heads.stgcn import STGCN
from cbam3d.errors import check_options
from cbam3d.plugins import Registry


def _check(head: Any) -> None:
    if not isinstance(head, type) or len(inspect.signature(head).parameters) < 2:
        raise ValueError(f"{head} must be a class whose first two parameters are channels and num_classes")


_BUILT_IN: dict[str, type[nn.Module]] = {
    "attention": AttentionPooling,
    "csra": CSRA,
    "gltr": GLTR,
    "mean": MeanHead,
    "rstan": RSTAN,
    "sta": STA,
    "statistics": StatisticsHead,
    "stgcn": STGCN,
}
heads = Registry("heads", "head", _BUILT_IN, _check)


def list_heads() -> list[str]:
    """Return the names that `create_head` accepts, those of installed plugins among them.

    Examples:
        >>> from cbam3d import list_heads
        >>> list_heads()[:3]
        ['attention', 'csra', 'gltr']
    """
    return heads.names()


def register_head(name: str, head: type[nn.Module]) -> None:
    """Register a head by name for `create_head` and `create_model`.

    Args:
        name: lower case with underscores; not one of `list_heads()`.
        head: the class. Its first two parameters are the channels of the features and num_classes; the rest are
            options. Its instances map (N, C, *S) to logits (N, num_classes).

    Raises:
        ValueError: a name that is taken or malformed, or something other than such a class.

    Examples:
        >>> from cbam3d import create_head, register_head
        >>> class Maximum(torch.nn.Module):
        ...     def __init__(self, channels, num_classes):
        ...         super().__init__()
        ...         self.fc = torch.nn.Linear(channels, num_classes)
        ...
        ...     def forward(self, x):
        ...         return self.fc(x.flatten(2).amax(2))
        >>> register_head("maximum", Maximum)
        >>> create_head("maximum", 64, 10)(torch.randn(2, 64, 8, 7, 7)).shape
        torch.Size([2, 10])
    """
    heads.add(name, head)


def create_head(name: str, channels: int, num_classes: int, **options: Any) -> nn.Module:
    """Build a head by name.

    Args:
        name: one of `list_heads()`.
        channels: C of the features.
        num_classes: size K of the logits.
        options: keyword arguments of the head.

    Returns: a module, (N, C, *S) -> (N, K), of any number of axes S.

    Raises:
        ValueError: an unknown name or option (the nearest known one is suggested), or an invalid value.

    Examples:
        >>> from cbam3d import create_head
        >>> create_head("gltr", 512, 10, dim=64)(torch.randn(2, 512, 8, 7, 7)).shape
        torch.Size([2, 10])
    """
    positive("channels and num_classes", channels, num_classes)
    check_options(f"head {name!r}", options, set(head_options(name)))
    return heads.find(name)(channels, num_classes, **options)


def head_options(name: str) -> dict[str, Any]:
    """Return a head's options and their defaults.

    Raises:
        ValueError: an unknown name.
    """
    _, _, *options = inspect.signature(heads.find(name)).parameters.values()
    return {option.name: option.default for option in options}
