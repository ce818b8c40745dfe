"""Attention blocks for images and clips. Knows torch only."""

from cbam3d.attention.action import Action
from cbam3d.attention.asff import ASFF
from cbam3d.attention.bam import BAM
from cbam3d.attention.bfloat16 import guard_conv3d
from cbam3d.attention.catalog import (
    AttentionFacts,
    attention_options,
    attention_ranks,
    create_attention,
    describe_attention,
    list_attentions,
    register_attention,
)
from cbam3d.attention.cbam import CBAM, CBAM2d, CBAM3d, ChannelAttention, SpatialAttention, TemporalAttention
from cbam3d.attention.coordinate import Coordinate
from cbam3d.attention.criss_cross import CrissCross
from cbam3d.attention.deformable import DeformableConv
from cbam3d.attention.eca import ECA
from cbam3d.attention.em_attention import EMAttention
from cbam3d.attention.fca import FCA
from cbam3d.attention.gc import GC
from cbam3d.attention.gct import GCT
from cbam3d.attention.ge import GE
from cbam3d.attention.gsop import GSoP
from cbam3d.attention.heads import CSRA, AttentionPooling, create_head, list_heads, register_head
from cbam3d.attention.insertion.insert import Insertion, insert_attention, list_insertions, remove_attention
from cbam3d.attention.maps import attention_maps
from cbam3d.attention.non_local import NonLocal
from cbam3d.attention.residual import ResidualAttention
from cbam3d.attention.rga import RGA
from cbam3d.attention.san import SAN
from cbam3d.attention.sasa import SASA
from cbam3d.attention.sc import SC
from cbam3d.attention.scse import SCSE
from cbam3d.attention.se import SE
from cbam3d.attention.self_attention import SelfAttention
from cbam3d.attention.simam import SimAM
from cbam3d.attention.sk import SK
from cbam3d.attention.srm import SRM
from cbam3d.attention.stn import STN
from cbam3d.attention.tam import TAM
from cbam3d.attention.tea import TEA
from cbam3d.attention.triplet import Triplet
from cbam3d.attention.tsm import TSM

__all__ = [
    "ASFF",
    "BAM",
    "CBAM",
    "CSRA",
    "ECA",
    "FCA",
    "GC",
    "GCT",
    "GE",
    "RGA",
    "SAN",
    "SASA",
    "SC",
    "SCSE",
    "SE",
    "SK",
    "SRM",
    "STN",
    "TAM",
    "TEA",
    "TSM",
    "Action",
    "AttentionFacts",
    "AttentionPooling",
    "CBAM2d",
    "CBAM3d",
    "ChannelAttention",
    "Coordinate",
    "CrissCross",
    "DeformableConv",
    "EMAttention",
    "GSoP",
    "Insertion",
    "NonLocal",
    "ResidualAttention",
    "SelfAttention",
    "SimAM",
    "SpatialAttention",
    "TemporalAttention",
    "Triplet",
    "attention_maps",
    "attention_options",
    "attention_ranks",
    "create_attention",
    "create_head",
    "describe_attention",
    "guard_conv3d",
    "insert_attention",
    "list_attentions",
    "list_heads",
    "list_insertions",
    "register_attention",
    "register_head",
    "remove_attention",
]
