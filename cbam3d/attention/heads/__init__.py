"""Heads: attention that ends a network, features (N, C, *S) -> logits (N, K)."""

from cbam3d.attention.heads.catalog import create_head, head_options, list_heads, register_head
from cbam3d.attention.heads.csra import CSRA
from cbam3d.attention.heads.gltr import GLTR
from cbam3d.attention.heads.mean import MeanHead
from cbam3d.attention.heads.pooling import AttentionPooling
from cbam3d.attention.heads.rstan import RSTAN
from cbam3d.attention.heads.sta import STA, frame_disagreement
from cbam3d.attention.heads.statistics import StatisticsHead
from cbam3d.attention.heads.stgcn import STGCN

__all__ = [
    "CSRA",
    "GLTR",
    "RSTAN",
    "STA",
    "STGCN",
    "AttentionPooling",
    "MeanHead",
    "StatisticsHead",
    "create_head",
    "frame_disagreement",
    "head_options",
    "list_heads",
    "register_head",
]
