"""Attention blocks for images and clips. Knows torch only."""

from cbam3d.attention.catalog import create_attention, list_attentions
from cbam3d.attention.cbam import CBAM, CBAM2d, CBAM3d, ChannelAttention, SpatialAttention, TemporalAttention

__all__ = [
    "CBAM",
    "CBAM2d",
    "CBAM3d",
    "ChannelAttention",
    "SpatialAttention",
    "TemporalAttention",
    "create_attention",
    "list_attentions",
]
