"""Pretrained weights: found by name, held against the network that they are for, and how they want their input."""

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from torch import nn

from cbam3d.attention import CBAM, list_insertions
from cbam3d.errors import InputError
from cbam3d.models.headed import HeadedNetwork
from cbam3d.models.libraries import LIBRARIES
from cbam3d.models.libraries.own_input import OwnInput
from cbam3d.models.repository import PREFIX, WEIGHTS, download
from cbam3d.models.weights import WeightsReport

# equivalent networks of torchvision, for their weights: (ndim, name) -> torchvision's name
_SAME_AS_TORCHVISION: dict[tuple[int | None, str], str] = {(3, "resnet18"): "r3d_18"}
_SAME_AS_TORCHVISION |= {(2, f"resnet{depth}"): f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}


def find_weights(name: str, ndim: int | None, weights: Any) -> Any:
    """Resolve weights to what `load_weights` takes: a path, a state dict, or a member of a weights enum.

    Args:
        name: of the network.
        ndim: its rank.
        weights: a path, the name of torchvision's weights, "hf:owner/name"; anything else is returned as it is.

    Raises:
        ValueError: no such weights.
    """
    if not isinstance(weights, (str, Path)):
        return weights
    if (file := weights_file(weights)) is not None:
        return file
    library, short = _in_library(name, ndim)
    if library not in LIBRARIES or not short:
        raise ValueError(f"{name} with ndim={ndim} has no named weights, got {str(weights)!r}: give a file")
    return LIBRARIES[library].find_weights(short, str(weights))


def weights_file(weights: str | Path) -> Path | None:
    """The file of weights that a path, the folder of a run or "hf:owner/name" means; None for the name of weights."""
    text = str(weights)
    if text.startswith(PREFIX):
        return download(text.removeprefix(PREFIX)) / WEIGHTS
    if (last := Path(text) / "checkpoints" / "last.ckpt").is_file():  # the folder of a run
        return last
    return Path(text) if Path(text).is_file() or "/" in text or Path(text).suffix else None


def own_input(name: str, ndim: int | None, member: str | None) -> OwnInput:
    """What is known of the input that a network's pretrained weights want.

    Args:
        name: of the network.
        ndim: its rank.
        member: the name of the weights; None for a file, of which those of the network's usual weights are assumed.

    Raises:
        ValueError: no such network or weights.
    """
    library, short = _in_library(name, ndim)
    return LIBRARIES[library].own_input(short, member) if library in LIBRARIES and short else OwnInput()


def _in_library(name: str, ndim: int | None) -> tuple[str, str]:
    """The library, and the name in it, whose weights fit a network; "" where there are none."""
    library, short = split_name(name)
    return (library, short) if library else ("torchvision", _SAME_AS_TORCHVISION.get((ndim, name), ""))


def split_name(name: str) -> tuple[str, str]:
    """A library, or "", and the name of a network in it."""
    library, slash, short = name.partition("/")
    return (library, short) if slash else ("", name)


def check_filled(
    report: WeightsReport, model: nn.Module, own_head: Collection[str], removed: Collection[str], misfit: str
) -> None:
    """Raise InputError unless weights cover a network, except for the head and attention that they lack.

    Args:
        report: of loading the weights.
        model: the network.
        own_head: keys of the network's own head, which depend on the number of classes.
        removed: keys that the network had before it got another head.
        misfit: beginning of the error message.
    """
    own_head, removed = ({inner_name(key) for key in keys} for keys in (own_head, removed))
    names = {module: name for name, module in model.named_modules()}
    has_head = isinstance(model, HeadedNetwork)
    # prefix -> whether the block is CBAM, whose gates are optional
    blocks = {f"{names[one.block]}.": isinstance(one.block, CBAM) for one in list_insertions(model)}

    def part_of(key: str) -> str:
        """The gate or block that a parameter belongs to; empty for one of the network itself."""
        for prefix, has_gates in blocks.items():
            if key.startswith(prefix):
                return prefix + key.removeprefix(prefix).partition(".")[0] if has_gates else prefix
        return ""

    def is_head(key: str) -> bool:
        return inner_name(key) in own_head or (has_head and key.startswith("head."))

    given = model.state_dict().keys() - set(report.new)
    begun = {part_of(key) for key in given if not key.endswith("num_batches_tracked")}
    for key in report.new:
        absent = part_of(key) and (part_of(key) not in begun or key.endswith(".scale"))
        if not is_head(key) and not absent:
            raise InputError(f"{misfit}: it has no {key}")
    for key, reason in report.skipped.items():
        target = report.misfits.get(key)
        of_other_head = inner_name(key) in removed or (key.startswith("head.") and not has_head)
        if not (is_head(target) if target else of_other_head):
            raise InputError(f"{misfit}: {key}: {reason}")


def inner_name(key: str) -> str:
    """A key without the names of the networks that are put around the one it belongs to."""
    return re.sub(r"^(backbone\.)+", "", key)
