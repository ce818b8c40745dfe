"""Attention blocks for images and clips. Knows torch only."""

from cbam3d.attention.catalog import create_attention, list_attentions
from cbam3d.attention.cbam import CBAM, CBAM2d, CBAM3d, ChannelAttention, SpatialAttention, TemporalAttention
from cbam3d.attention.insert import Insertion, insert_attention, list_insertions, remove_attention

__all__ = [
    "CBAM",
    "CBAM2d",
    "CBAM3d",
    "ChannelAttention",
    "Insertion",
    "SpatialAttention",
    "TemporalAttention",
    "create_attention",
    "insert_attention",
    "list_attentions",
    "list_insertions",
    "remove_attention",
]
