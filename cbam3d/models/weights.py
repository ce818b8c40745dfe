"""Load weights from other networks: matched, renamed, inflated, adapted, and every key accounted for."""

import logging
import re
from collections import Counter, OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.models.headed import HeadedNetwork

logger = logging.getLogger(__name__)

Inflation = Literal["repeat", "centre"]
Match = Literal["name", "order"]
_NESTED = ("state_dict", "model_state_dict", "model_state", "model", "module", "network", "net")  # in checkpoints
_OF_NORMS = {"weight", "bias", "running_mean", "running_var"}
_FOREIGN_GATE = re.compile(r"ChannelGate\.|SpatialGate\.|(^|\.)[cs]a\.|(^|\.)(hw|cw|hc)\.conv\.")


@dataclass
class WeightsReport:
    """What was done with every key of the source, and which of the network's are missing (`new`).

    `renamed` maps source keys to network keys; `inflated`, `adapted` and `skipped` map source keys to what
    was done, or why they were skipped. Each key is in only one of the six, by its last change.

    Examples:
        >>> from cbam3d import ResNet, load_weights
        >>> report = load_weights(ResNet(10, 5, width=8), ResNet(10, 7, width=8).state_dict())
        >>> sorted(report.skipped)  # a head of other classes
        ['fc.bias', 'fc.weight']
    """

    matched: list[str] = field(default_factory=list)
    renamed: dict[str, str] = field(default_factory=dict)
    inflated: dict[str, str] = field(default_factory=dict)
    adapted: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    misfits: dict[str, str] = field(default_factory=dict)  # skipped keys whose shape differs from this key's
    order: bool = False  # whether entries were matched by their order, so that all of them are renamed

    @property
    def complete(self) -> bool:
        """Whether the source covered the whole network and no key was unused."""
        return not self.skipped and not self.new

    @property
    def summary(self) -> str:
        """How many keys of each kind, and how the first of those that were adapted or skipped."""
        parts = []
        for name in ("matched", "renamed", "inflated", "adapted", "skipped", "new"):
            if entries := getattr(self, name):
                of_first = next(iter(entries.items())) if name in ("adapted", "skipped") else ()
                parts.append(f"{len(entries)} {name}" + (f" ({': '.join(of_first)})" if of_first else ""))
        return ", ".join(parts)

    def note(self, key: str, target: str, change: str) -> None:
        """Record that a key of the source filled one of the network, and what was done for it to fit."""
        if change.startswith("inflated"):
            self.inflated[key] = change
        elif change:
            self.adapted[key] = change
        elif target != key:
            self.renamed[key] = target
        else:
            self.matched.append(key)

    def by_order(self, sources: Mapping[str, str]) -> "WeightsReport":
        """The report in terms of the source's own keys, where entries were matched by their order."""
        names = ("inflated", "adapted", "skipped", "misfits")
        texts: dict[str, Any] = {n: {sources[key]: text for key, text in getattr(self, n).items()} for n in names}
        renamed = {sources[key]: key for key in self.matched}
        return WeightsReport(renamed=renamed, new=self.new, order=True, **texts)

    def __str__(self) -> str:
        lines = ["matched by order, not by name"] if self.order else []
        for name in ("matched", "renamed", "inflated", "adapted", "skipped", "new"):
            entries = getattr(self, name)
            lines.append(f"{name:9}{len(entries):5}")
            if name in ("adapted", "skipped"):
                lines += [f"    {key}: {text}" for key, text in entries.items()]
            if name == "new":
                lines += [f"    {key}" for key in entries]
        return "\n".join(lines)


def load_weights(
    model: nn.Module,
    source: Any,
    inflation: Inflation = "repeat",
    require_complete: bool = False,
    match: Match = "name",
) -> WeightsReport:
    """Load weights into a network, possibly from another one.

    Names: wrapper prefixes (`module.`, `model.`, `backbone.`, `_orig_mod.`) are ignored; the layouts of
    torchvision's video ResNets, of plain ResNets and 3D-ResNets-PyTorch, of the official CBAM and of a
    common port of it (in networks, or a block alone), and of the official triplet attention are mapped onto each
    other; a bias that external gates lack is set to 0. Shapes: 2D kernels are inflated to 3D, 1x1 kernels become
    linear layers and vice versa, and the first convolution is adapted to another number of channels (preserving the
    response to equal channels). A head for other classes is left unchanged.

    Args:
        model: the network; changed in place, unless an error is raised.
        source: a path (.safetensors, or .pt, .pth, .ckpt of tensors and plain data), a state dict, or a member of
            a torchvision weights enum, which is downloaded.
        inflation: of 2D kernels: "repeat" along time and divide by its length (I3D, https://arxiv.org/abs/1705.07750),
            or "centre": the middle frame only, zero elsewhere, which preserves a still clip's features exactly,
            even at its ends.
        require_complete: raise an error unless the source covers the whole network and no key is unused.
        match: "name"; or "order" for a source with other names, whose entries are those of the network one after the
            other, with the same shapes (up to inflation, and the last ones, of a head for other classes).

    Raises:
        InputError: an unreadable file, a source without any matching tensor, a network on the meta device, or an
            incomplete source where a complete one is required.

    Examples:
        >>> from cbam3d import ResNet, load_weights
        >>> from torchvision.models import resnet18
        >>> report = load_weights(ResNet(18, num_classes=10), resnet18().state_dict())  # of images, into one of clips
        >>> len(report.inflated)
        20
    """
    if inflation not in ("repeat", "centre"):
        raise InputError(f'inflation must be "repeat" or "centre", got {inflation!r}')
    if match not in ("name", "order"):
        raise InputError(f'match must be "name" or "order", got {match!r}')
    origin, state = _read(source)
    own = model.state_dict()
    if any(value.is_meta for value in own.values()):
        raise InputError("the network is on the meta device, which holds no weights: move it with to_empty first")
    sources: dict[str, str] = {}  # key of the network -> of the source, where matched by order
    if match == "order":
        sources = _in_order(origin, state, own)
        state = {key: state[source] for key, source in sources.items()}
    open_keys = own
    parts = {re.sub(r"^((module|model|_orig_mod)\.)+", "", key).partition(".")[0] for key in state}
    if isinstance(model, HeadedNetwork) and not {"backbone", "head"} <= parts:
        open_keys = {key: value for key, value in own.items() if key.startswith("backbone.")}  # its head is another
    report, filled = _fill(model, own, open_keys, state, inflation)
    # The batch counter is bookkeeping: older files lack it.
    report.new = [key for key in own if key not in filled and not key.endswith("num_batches_tracked")]
    if match == "order":
        report = report.by_order(sources)
    if not filled:
        hint = "" if match == "order" else ' (where only its names differ, match="order", model.weights_match, helps)'
        raise InputError(f"{origin}: none of its {len(state)} tensors fits {type(model).__name__}{hint}")
    if require_complete and not report.complete:
        raise InputError(_incomplete(origin, report))
    filled = OrderedDict(filled)
    filled._metadata = own._metadata  # type: ignore[attr-defined]  # versions, which some networks ask for
    model.load_state_dict(filled, strict=False)
    return report


def _fill(
    model: nn.Module,
    own: Mapping[str, Tensor],
    open_keys: Mapping[str, Tensor],
    state: Mapping[str, Tensor],
    inflation: Inflation,
) -> tuple[WeightsReport, dict[str, Tensor]]:
    """Find a place for every entry of the source.

    Args:
        model: the network.
        own: its entries.
        open_keys: those of them that the source may name in another layout.
        state: the entries of the source.
        inflation: see `load_weights`.

    Returns: what was done, and the network's new entries.
    """
    by_layout, source_layout = _unambiguous(open_keys), _unambiguous(state)
    first_conv = next((key for key, value in own.items() if value.ndim >= 4), None)
    report, filled = WeightsReport(), {}
    targets = {key: _target(key, open_keys, by_layout) for key in state}
    for key, value in state.items():
        target = targets[key]
        if target is None:
            report.skipped[key] = "the network has no such key"
        elif _unwrapped(key) != target != key and _canonical(key) not in source_layout:
            report.skipped[key] = f"{target} is matched by several keys"
        elif (key not in own and target in state) or target in filled:
            report.skipped[key] = f"{target} is already set"
        else:
            fitted, change = _fit(key, value, own[target], target == first_conv, inflation)
            if fitted is None:
                report.skipped[key], report.misfits[key] = change, target
                continue
            filled[target] = fitted
            if key not in own and _FOREIGN_GATE.search(key):
                filled |= _scale_of(model, target)
                bias = re.sub("weight$", "bias", target)
                if bias in own.keys() - targets.values():
                    filled[bias] = torch.zeros_like(own[bias])
                    change = ", ".join(filter(None, [change, "with a bias of 0"]))
            report.note(key, target, change)
    return report, filled


def _scale_of(model: nn.Module, key: str) -> dict[str, Tensor]:
    """The scale of the gate that a parameter belongs to, as in other implementations: σ, not 2σ."""
    parts = key.split(".")
    for i in range(len(parts)):
        owner = ".".join(parts[:i])
        scale = getattr(model.get_submodule(owner), "scale", None)
        if isinstance(scale, Tensor):
            return {f"{owner}.scale".strip("."): torch.ones_like(scale)}
    return {}


def _incomplete(origin: str, report: WeightsReport) -> str:
    parts = []
    if report.skipped:
        key, reason = next(iter(report.skipped.items()))
        parts.append(f"{len(report.skipped)} keys are unused, the first is {key} ({reason})")
    if report.new:
        parts.append(f"{len(report.new)} keys of the network are missing, the first is {report.new[0]}")
    return f"{origin} is not complete: {'; '.join(parts)}"


def is_of_images(path: Path) -> bool:
    """Whether a file holds the weights of an image network: some kernels have two dimensions, none has three.

    Raises:
        InputError: an unreadable file.
    """
    ranks = {value.ndim for value in _read(path)[1].values()}
    return 4 in ranks and 5 not in ranks


def _read(source: Any) -> tuple[str, dict[str, Tensor]]:
    """A name for the source, and its tensors."""
    if isinstance(source, (str, Path)):
        origin, content = str(source), load_tensors(Path(source), "weights file")
    elif hasattr(source, "get_state_dict"):
        origin, content = str(source), _downloaded(source)
    else:
        origin, content = "the state dict", source
    if isinstance(content, Mapping) and isinstance(content.get("average"), Mapping):
        average = content["average"]  # of a run of this package: the weights that are scored
        content = {key: value for key, value in average.items() if key != "n_averaged"}
    for name in _NESTED:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            if averages := [
                key for key in content if "ema" in str(key).split("_") and isinstance(content[key], Mapping)
            ]:
                logger.warning(f"{origin}: taken is {name}; the file has an average of weights too: {averages[0]}")
            content = content[name]
    tensors: dict[str, Tensor] = {}
    if isinstance(content, Mapping):
        tensors = {k: v for k, v in content.items() if isinstance(k, str) and isinstance(v, Tensor)}
        tensors.pop("n_averaged", None)  # torch's AveragedModel counts
    if not tensors:
        inner = [str(k) for k, v in content.items() if isinstance(v, Mapping)] if isinstance(content, Mapping) else []
        hint = f", but mappings ({', '.join(inner)}): pass one of them as a state dict" if inner else ""
        raise InputError(f"{origin}: contains no named tensors{hint}")
    if lost := next((k for k, v in tensors.items() if v.is_floating_point() and v.isnan().any()), None):
        raise InputError(f"{origin}: {lost} has values that are nan")
    return origin, tensors


def _downloaded(member: Any) -> Any:
    """The state dict of a member of a torchvision weights enum."""
    try:
        return member.get_state_dict(progress=True, check_hash=True)
    except (OSError, RuntimeError) as error:  # URLError is an OSError; RuntimeError: wrong checksum
        place = Path(torch.hub.get_dir()) / "checkpoints" / member.url.rpartition("/")[2]
        reason = " ".join(str(error).split())
        raise InputError(
            f"{member} cannot be downloaded from {member.url} ({reason}): put that file at {place}, or give a file"
        ) from None


# ---- names ----------------------------------------------------------------------------------------------

_LAYOUTS = [
    (r"^((module|model|backbone|_orig_mod)\.)+", ""),
    # torchvision's video ResNets: Sequential(conv, norm) in place of conv and bn
    (r"^stem\.0\.", "conv1."),
    (r"^stem\.1\.", "bn1."),
    (r"(\.conv(\d))\.0\.weight$", r"\1.weight"),
    (r"\.conv(\d)\.1\.(weight|bias|running_mean|running_var|num_batches_tracked)$", r".bn\1.\2"),
    # torchvision's older names, which its checkpoints have
    (r"(denselayer\d+\.(?:norm|conv))\.([12])\.", r"\1\2."),
    (r"\.mlp\.linear_1\.", ".mlp.0."),
    (r"\.mlp\.linear_2\.", ".mlp.3."),
    # attention inserted after the last norm of a branch, where ResNet here has a slot
    (r"\.(bn[23]|conv[23]\.1|branch2)\.inserted_attention\.", ".attention."),
    # the official CBAM, https://github.com/Jongchan/attention-module
    (r"(^|\.)cbam\.", r"\1attention."),
    (r"(^|\.)ChannelGate\.mlp\.1\.", r"\1channel.mlp.0."),
    (r"(^|\.)ChannelGate\.mlp\.3\.", r"\1channel.mlp.2."),
    (r"(^|\.)SpatialGate\.spatial\.conv\.", r"\1spatial.conv."),
    (r"(^|\.)SpatialGate\.spatial\.bn\.", r"\1spatial.norm."),
    # a widely used port, https://github.com/luuuyi/CBAM.PyTorch
    (r"(^|\.)ca\.(fc1|fc\.0)\.", r"\1attention.channel.mlp.0."),
    (r"(^|\.)ca\.(fc2|fc\.2)\.", r"\1attention.channel.mlp.2."),
    (r"(^|\.)sa\.(conv1|conv)\.", r"\1attention.spatial.conv."),
    # the official triplet attention, https://github.com/landskape-ai/triplet-attention: maps over H×W, C×W and H×C
    (r"(^|\.)triplet_attention\.", r"\1attention."),
    *((rf"(^|\.){name}\.conv\.conv\.", rf"\1branches.{i}.0.") for i, name in enumerate(("hw", "cw", "hc"))),
    *((rf"(^|\.){name}\.conv\.bn\.", rf"\1branches.{i}.1.") for i, name in enumerate(("hw", "cw", "hc"))),
    # a block alone
    (r"^(channel|spatial|temporal|branches)\.", r"attention.\1."),
]


def _target(key: str, own: Mapping[str, Tensor], by_layout: Mapping[str, str]) -> str | None:
    """The network's key for a source key: equal, equal without a wrapper's prefix, or equal in the common layout."""
    for candidate in (key, _unwrapped(key)):
        if candidate in own:
            return candidate
    return by_layout.get(_canonical(key))


def _unwrapped(key: str) -> str:
    return re.sub(r"^(module|_orig_mod)\.", "", key)


def _unambiguous(keys: Iterable[str]) -> dict[str, str]:
    """Keys by their name in the common layout, without ambiguous ones."""
    keys = list(keys)
    counts = Counter(_canonical(key) for key in keys)
    return {_canonical(key): key for key in keys if counts[_canonical(key)] == 1}


def _canonical(key: str) -> str:
    """A parameter's name in the common layout, that of `ResNet`."""
    for pattern, replacement in _LAYOUTS:
        key = re.sub(pattern, replacement, key)
    return key


def _in_order(origin: str, state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, str]:
    """The network's keys and the source's, one after the other, without the norms' counters of batches.

    Raises:
        InputError: another number of entries, a shape that differs before the last ones, of a head, or entries of a
            norm in another order.
    """
    ours, theirs = (
        [key for key, value in one.items() if value.ndim or value.is_floating_point()] for one in (own, state)
    )
    if len(ours) != len(theirs):
        raise InputError(
            f"{origin} has {len(theirs)} entries, the network {len(ours)}: they cannot be matched by order"
        )
    pairs = dict(zip(ours, theirs, strict=True))
    fits = [_of_one_shape(state[source], own[key]) for key, source in pairs.items()]
    until = max((i for i, fit in enumerate(fits) if fit), default=-1)
    for fit, (key, source) in list(zip(fits, pairs.items(), strict=True))[: until + 1]:
        if not fit:
            shapes = f"{tuple(state[source].shape)} and {tuple(own[key].shape)}"
            raise InputError(f"{origin} does not match by order: {source} and {key} have the shapes {shapes}")
        ends = {source.rpartition(".")[2], key.rpartition(".")[2]}
        if len(ends) > 1 and ends <= _OF_NORMS:
            raise InputError(f"{origin} does not match by order: {source} would be {key}")
    return pairs


def _of_one_shape(value: Tensor, like: Tensor) -> bool:
    """Whether shapes agree, up to inflation of a kernel."""
    inflatable = value.ndim == 4 and like.ndim == 5 and value.shape == (*like.shape[:2], *like.shape[3:])
    return value.shape == like.shape or inflatable


# ---- shapes ---------------------------------------------------------------------------------------------


def _fit(key: str, value: Tensor, like: Tensor, is_first: bool, inflation: Inflation) -> tuple[Tensor | None, str]:
    """The value in the shape of `like` and the changes, or None and why it does not fit."""
    before, wanted, changes = tuple(value.shape), tuple(like.shape), []
    value = value.to(like.dtype)
    if "SpatialGate.spatial.conv" in key:  # the official code pools [max; mean], this one [mean; max]
        value = value.flip(1)
        changes.append("planes swapped from [max; mean]")
    if re.search(r"(^|\.)hc\.conv\.conv\.weight$", key):  # the official map is over H×C, this one over C×H
        value = value.transpose(-1, -2)
        changes.append("transposed")
    if value.ndim == 4 and like.ndim == 5 and before[2:] == wanted[3:]:
        value = _inflate(value, wanted[2], inflation)
        changes.insert(0, f"inflated from {before}")
    same_but_channels = value.ndim >= 4 and (value.shape[0], *value.shape[2:]) == (wanted[0], *wanted[2:])
    if is_first and same_but_channels and value.shape[1] != wanted[1]:
        changes.append(f"adapted from {value.shape[1]} to {wanted[1]} input channels")
        value = _adapt_channels(value, wanted[1])
    if value.ndim != like.ndim and _squeezed(value) == _squeezed(like):
        value = value.reshape(wanted)
        changes.append(f"reshaped from {before} to {wanted}")
    if value.shape != like.shape:
        return None, f"shape {before}, the network has {wanted}"
    return value, ", ".join(changes)


def _inflate(kernel: Tensor, frames: int, inflation: Inflation) -> Tensor:
    """(O, I, H, W) -> (O, I, frames, H, W), with the same response to a still clip."""
    if inflation == "repeat":
        return kernel.unsqueeze(2).expand(-1, -1, frames, -1, -1) / frames
    out = kernel.new_zeros(*kernel.shape[:2], frames, *kernel.shape[2:])
    out[:, :, frames // 2] = kernel
    return out


def _adapt_channels(kernel: Tensor, channels: int) -> Tensor:
    """Change the number of input channels, with the same response if all channels are equal."""
    given = kernel.shape[1]
    repeats = [1, channels // given, *(1 for _ in kernel.shape[2:])]
    if channels % given == 0:
        return kernel.repeat(repeats) * given / channels
    return kernel.mean(1, keepdim=True).expand(-1, channels, *kernel.shape[2:]) * given / channels


def _squeezed(value: Tensor) -> list[int]:
    return [n for n in value.shape if n != 1]
