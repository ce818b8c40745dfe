"""Action recognition in video with 3D attention."""

from cbam3d.attention import (
    CBAM,
    CSRA,
    CBAM2d,
    CBAM3d,
    ChannelAttention,
    SpatialAttention,
    TemporalAttention,
    create_attention,
    describe_attention,
    insert_attention,
    list_attentions,
    list_insertions,
    remove_attention,
)
from cbam3d.models import ResNet, create_model, list_models, load_weights

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
    "create_attention",
    "create_model",
    "describe_attention",
    "insert_attention",
    "list_attentions",
    "list_insertions",
    "list_models",
    "load_weights",
    "remove_attention",
]
