"""Every attention mechanism by name."""

import inspect
from typing import Any

from torch import nn

from cbam3d.attention.cbam import CBAM
from cbam3d.errors import check_options, unknown

_CATALOG: dict[str, type[nn.Module]] = {"cbam": CBAM}


def list_attentions() -> list[str]:
    """The names that `create_attention` knows."""
    return sorted(_CATALOG)


def create_attention(name: str, channels: int, ndim: int = 3, **options: Any) -> nn.Module:
    """Build an attention block by name.

    Args:
        name: one of `list_attentions()`.
        channels: number of input channels C.
        ndim: 2 for images, 3 for clips.
        options: the mechanism's own keyword arguments.

    Returns: a module, (N, C, *spatial) -> the same shape.

    Raises:
        ValueError: an unknown name, an unknown option (the nearest known one is named), or a value that
            the mechanism refuses.
    """
    if name not in _CATALOG:
        raise ValueError(unknown("attention", name, _CATALOG))
    cls = _CATALOG[name]
    known = set(inspect.signature(cls).parameters) - {"channels", "ndim"}
    check_options(f"attention {name!r}", options, known)
    return cls(channels, ndim=ndim, **options)
