"""Every attention mechanism by name."""

import inspect
import re
import sys
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cbam3d.attention.action import Action
from cbam3d.attention.bam import BAM
from cbam3d.attention.cbam import CBAM
from cbam3d.attention.coordinate import Coordinate
from cbam3d.attention.criss_cross import CrissCross
from cbam3d.attention.deformable import DeformableConv
from cbam3d.attention.eca import ECA
from cbam3d.attention.em_attention import EMAttention
from cbam3d.attention.fca import FCA
from cbam3d.attention.gate import positive
from cbam3d.attention.gc import GC
from cbam3d.attention.gct import GCT
from cbam3d.attention.ge import GE
from cbam3d.attention.gsop import GSoP
from cbam3d.attention.nd import check_clips, check_ndim
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
from cbam3d.errors import check_options
from cbam3d.plugins import Registry


def _check(block: Any) -> None:
    if not isinstance(block, type) or next(iter(inspect.signature(block).parameters), "") != "channels":
        raise ValueError(f"{block} must be a class whose first parameter is channels")


_BUILT_IN: dict[str, type[nn.Module]] = {
    "action": Action,
    "bam": BAM,
    "cbam": CBAM,
    "coordinate": Coordinate,
    "criss_cross": CrissCross,
    "deformable": DeformableConv,
    "eca": ECA,
    "em_attention": EMAttention,
    "fca": FCA,
    "gc": GC,
    "gct": GCT,
    "ge": GE,
    "gsop": GSoP,
    "non_local": NonLocal,
    "residual": ResidualAttention,
    "rga": RGA,
    "san": SAN,
    "sasa": SASA,
    "sc": SC,
    "scse": SCSE,
    "se": SE,
    "self_attention": SelfAttention,
    "simam": SimAM,
    "sk": SK,
    "srm": SRM,
    "stn": STN,
    "tam": TAM,
    "tea": TEA,
    "triplet": Triplet,
    "tsm": TSM,
}

mechanisms = Registry("attention", "attention", _BUILT_IN, _check, reserved=("none",))


def list_attentions() -> list[str]:
    """Return the names that `create_attention` accepts, those of installed plugins among them.

    Examples:
        >>> from cbam3d import list_attentions
        >>> "cbam" in list_attentions()
        True
    """
    return mechanisms.names()


def register_attention(name: str, block: type[nn.Module]) -> None:
    """Register a mechanism by name for `create_attention`, `insert_attention` and `create_model`.

    Args:
        name: lower case with underscores; not one of `list_attentions()`.
        block: the class. Its first parameter is `channels`; `init` ("paper" or "identity") is needed for insertion;
            `ndim`, if it has one, is 2 or 3; the rest are options. Its instances map (N, C, *S) to the same shape; an
            attribute `ranks`, (2,) or (3,), restricts it to images or clips.

    Raises:
        ValueError: a name that is taken or malformed, or a block that is not a class with `channels` first.

    Examples:
        >>> from cbam3d import create_attention, register_attention
        >>> class Half(torch.nn.Module):
        ...     def __init__(self, channels, init="paper"):
        ...         super().__init__()
        ...
        ...     def forward(self, x):
        ...         return x / 2
        >>> register_attention("half", Half)
        >>> create_attention("half", 64)(torch.ones(1, 64, 2, 4, 4)).mean().item()
        0.5
    """
    mechanisms.add(name, block)


def create_attention(name: str, channels: int, ndim: int = 3, **options: Any) -> nn.Module:
    """Build an attention block by name.

    Args:
        name: one of `list_attentions()`.
        channels: number of input channels C.
        ndim: 2 for images, 3 for clips.
        options: keyword arguments of the mechanism.

    Returns: a module, (N, C, *spatial) -> the same shape.

    Raises:
        ValueError: an unknown name or option (the nearest known one is suggested), a missing required option
            (num_frames of tam), or an invalid value.

    Examples:
        >>> from cbam3d import create_attention
        >>> block = create_attention("se", 64, ndim=2, reduction=8)
        >>> block(torch.randn(2, 64, 28, 28)).shape
        torch.Size([2, 64, 28, 28])
    """
    check_ndim(ndim)
    positive("channels", channels)
    known = attention_options(name)
    if ndim not in attention_ranks(name):
        check_clips(name, ndim)
        raise ValueError(f"{name} needs images: ndim=3 is for clips")
    check_options(f"attention {name!r}", options, set(known))
    missing = [option for option, default in known.items() if default is inspect.Parameter.empty]
    for option in missing:
        if option not in options:
            raise ValueError(f"attention {name!r} needs {option}")
    cls = mechanisms.find(name)
    rank = {"ndim": ndim} if "ndim" in inspect.signature(cls).parameters else {}  # some work at any rank
    return cls(channels, **rank, **options)


def attention_options(name: str) -> dict[str, Any]:
    """Return a mechanism's options and their defaults (`inspect.Parameter.empty` if required).

    Raises:
        ValueError: an unknown name.

    Examples:
        >>> from cbam3d.attention import attention_options
        >>> attention_options("se")["reduction"]
        16
    """
    if name == "ema":
        raise ValueError(
            "attention 'ema' is ambiguous: expectation-maximisation attention (1907.13426) is 'em_attention' here; "
            "efficient multi-scale attention (2305.13563) is not in the catalogue"
        )
    parameters = inspect.signature(mechanisms.find(name)).parameters.values()
    return {p.name: p.default for p in parameters if p.name not in ("channels", "ndim")}


def attention_ranks(name: str) -> tuple[int, ...]:
    """Return the ndim that a mechanism can have: 2 for images, 3 for clips.

    Examples:
        >>> from cbam3d.attention import attention_ranks
        >>> attention_ranks("tsm"), attention_ranks("se")
        ((3,), (2, 3))
    """
    attention_options(name)
    return getattr(mechanisms.find(name), "ranks", (2, 3))


@dataclass(frozen=True)
class AttentionFacts:
    """Description of a mechanism and its cost at one shape.

    Examples:
        >>> from cbam3d import describe_attention
        >>> facts = describe_attention("gct", 64, (28, 28))
        >>> facts.paper, facts.starts_as_identity
        ('https://arxiv.org/abs/1909.11519', True)
    """

    name: str
    title: str  # the first line of its module
    paper: str  # its link
    ranks: tuple[int, ...]
    num_parameters: int
    multiply_adds: int  # of convolutions and matrix products, per sample
    starts_as_identity: bool  # with init="paper"; with init="identity" all do


def describe_attention(name: str, channels: int, size: tuple[int, ...]) -> AttentionFacts | None:
    """Return a mechanism's facts, or None if it does not support that rank.

    Args:
        name: one of `list_attentions()`.
        channels: C.
        size: (H, W) or (T, H, W).

    Examples:
        >>> from cbam3d import describe_attention
        >>> describe_attention("eca", 64, (8, 28, 28)).num_parameters
        3
    """
    ranks = attention_ranks(name)
    if len(size) not in ranks:
        return None
    positive("size", *size)
    frames = {"num_frames": size[0]} if "num_frames" in attention_options(name) else {}
    with torch.random.fork_rng(devices=[]):  # keep the global generator's state
        block = create_attention(name, channels, ndim=len(size), **frames).eval()
        x = torch.randn(2, channels, *size)
    about = sys.modules[mechanisms.find(name).__module__].__doc__ or ""
    links = [*re.findall(r"https://\S+", about), ""]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        same = torch.equal(block(x), x)
    return AttentionFacts(
        name=name,
        title=about.partition("\n")[0].rstrip("."),
        paper=links[0],
        ranks=ranks,
        num_parameters=sum(p.numel() for p in block.parameters()),
        multiply_adds=counter.get_total_flops() // (2 * len(x)),
        starts_as_identity=same,
    )
