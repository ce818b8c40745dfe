"""Action recognition in video with 3D attention."""

from typing import TYPE_CHECKING, Any

from cbam3d.attention import (
    CBAM,
    CSRA,
    CBAM2d,
    CBAM3d,
    ChannelAttention,
    SpatialAttention,
    TemporalAttention,
    attention_maps,
    create_attention,
    describe_attention,
    guard_conv3d,
    insert_attention,
    list_attentions,
    list_insertions,
    register_attention,
    remove_attention,
)
from cbam3d.models import ResNet, create_model, list_models, load_weights

if TYPE_CHECKING:
    from cbam3d.classifier import load_run

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "CSRA",
    "CBAM2d",
    "CBAM3d",
    "ChannelAttention",
    "ResNet",
    "SpatialAttention",
    "TemporalAttention",
    "attention_maps",
    "create_attention",
    "create_model",
    "describe_attention",
    "guard_conv3d",
    "insert_attention",
    "list_attentions",
    "list_insertions",
    "list_models",
    "load_run",
    "load_weights",
    "register_attention",
    "remove_attention",
]


def __getattr__(name: str) -> Any:
    """`load_run` needs decoders, which blocks and networks do not: it is imported when it is asked for."""
    if name == "load_run":
        from cbam3d.classifier import load_run

        return load_run
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
