"""Heads: attention that ends a network, features (N, C, *S) -> logits (N, K)."""

from cbam3d.attention.heads.catalog import create_head, head_options, list_heads, register_head
from cbam3d.attention.heads.csra import CSRA
from cbam3d.attention.heads.mean import MeanHead
from cbam3d.attention.heads.pooling import AttentionPooling
from cbam3d.attention.heads.statistics import StatisticsHead

__all__ = [
    "CSRA",
    "AttentionPooling",
    "MeanHead",
    "StatisticsHead",
    "create_head",
    "head_options",
    "list_heads",
    "register_head",
]
