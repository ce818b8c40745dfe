"""Where attention goes in a network: the modules that a position selects."""

import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatchcase
from itertools import groupby

from torch import nn

from cbam3d.attention.insertion.features import Features

_SHOWN = 6  # candidates
POSITIONS = ("residual", "block", "stage", "last_stage")
# Numbered siblings: each is a stage, or a block of a stage; of a detector also of its neck.
_STAGES = ("layer", "stage", "s", "block")  # torchvision and most others; timm's and torchvision's RegNet
DROP_PATH = "drop_path"  # timm's name for stochastic depth
_NUMBERED = re.compile(
    r"(?P<parent>(.*\.)?)((?P<family>layer|stage|s|block)\d+|(?P<trunk>(\w+_)?stages|layers|blocks|features)\.[^.]+"
    r"|(?P<detector>model)\.\d+)"
)


def find_modules(
    model: nn.Module, position: str | Sequence[str], features: dict[str, Features], complete: bool = True
) -> list[str]:
    """Names of the modules at positions; `complete`: whether the pass that recorded the features finished."""
    chosen = [position] if isinstance(position, str) else position
    return [name for one in chosen for name in _at(model, one, features, complete)]


def _at(model: nn.Module, position: str, features: dict[str, Features], complete: bool) -> list[str]:
    if position == "residual":
        return _once([end for _, end in _residual_blocks(model)], features)
    if position == "block":
        return [block for block, _ in _residual_blocks(model)]
    if position in ("stage", "last_stage"):
        stages = _stages(model, features, complete)
        return [name for stage in (stages[-1:] if position == "last_stage" else stages) for name in stage]
    matched = [name for name, _ in model.named_modules() if name and _fits(name, position)]
    if not matched:
        known, kind = ", ".join(POSITIONS), type(model).__name__
        raise ValueError(
            f"{position!r} is not a position ({known}) and matches no module of {kind}{candidates(features)}"
        )
    return matched


def candidates(features: dict[str, Features]) -> str:
    """The modules that put out feature maps, the last of each size, for the error of a position that is not there."""
    last = {(one.channels, one.size): name for name, one in features.items() if name and max(one.size) > 1}
    if not last:
        return ""
    shown = [f"{name} ({' x '.join(map(str, (channels, *size)))})" for (channels, size), name in last.items()]
    more = "…, " if len(shown) > _SHOWN else ""
    return f"; feature maps come from {more}{', '.join(shown[-_SHOWN:])}"


def _fits(name: str, pattern: str) -> bool:
    """Whether a name fits, as it is or without the name of the network that a `FrameNetwork` or head is put around."""
    return fnmatchcase(name, pattern) or fnmatchcase(re.sub(r"^(backbone\.)+", "", name), pattern)


def _residual_blocks(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Yield the names of each residual block and of the module in it whose output is added to the shortcut."""
    for name, module in model.named_modules():
        if (end := _branch_end(module)) is not None:
            yield name, f"{name}.{end}".strip(".")


def _branch_end(block: nn.Module) -> str | None:
    """The child that ends the residual branch, for known families of blocks."""
    children = block._modules
    if hasattr(block, "has_attention_slot"):  # this package's
        return "attention"
    if "branch2" in children and hasattr(block, "branch_fusion"):  # pytorchvideo
        return "branch2"
    if hasattr(block, "downsample"):  # torchvision's 2D and 3D, timm's, 3D-ResNets-PyTorch
        for name in ("bn3", "conv3", "bn2", "conv2"):
            child = children.get(name)
            if child is not None and (name.startswith("bn") or isinstance(child, nn.Sequential)):
                behind = list(children)[list(children).index(name) + 1 :]
                return None if any(other.startswith("conv") for other in behind) else name  # pre-activation: none
    if getattr(block, "use_res_connect", False):  # torchvision's mobile networks and EfficientNet
        return "block" if "block" in children else "conv"
    if hasattr(block, "layer_scale") and "block" in children:  # torchvision's ConvNeXt
        return "block"
    if getattr(block, "add", False) is True and "cv2" in children:  # Ultralytics'
        return "cv2"
    if DROP_PATH in children and _adds_shortcut(block):  # timm's EfficientNet, ConvNeXt, RegNet, RepVGG, MobileViT
        return DROP_PATH
    return None


def _once(ends: list[str], features: dict[str, Features]) -> list[str]:
    """Without stochastic depth that ends several branches of a block, unless there is no other."""
    return [end for end in ends if end not in features or features[end].calls == 1] or ends


def _adds_shortcut(block: nn.Module) -> bool:
    """Whether one of timm's blocks adds its input: where it does not, one of these is False or None."""
    shortcuts = ("has_skip", "shortcut", "use_shortcut", "identity", "residual")
    return all(getattr(block, name, True) not in (False, None) for name in shortcuts)


def _stages(model: nn.Module, features: dict[str, Features], complete: bool) -> list[list[str]]:
    """The modules that end a stage, in order; parallel pathways of one stage together."""
    pathways = [name for name, module in model.named_modules() if hasattr(module, "res_blocks")]
    if pathways:
        return [list(group) for _, group in groupby(pathways, lambda name: name.split(".multipathway")[0])]
    trunks: dict[tuple[str, str], list[str]] = {}  # of numbered siblings
    for name, module in model.named_modules():
        if (match := _NUMBERED.fullmatch(name)) and (not match["family"] or list(module.children())):
            kind = match["family"] or match["trunk"] or match["detector"]
            trunks.setdefault((match["parent"], kind), []).append(name)
    several = {key: names for key, names in trunks.items() if len(names) > 1}
    if complete:  # those not reached output no feature maps
        several = {key: names for key, names in several.items() if features.keys() & set(names)} or several
    if not several:
        return []
    depth = min(parent.count(".") for parent, _ in several)
    outermost = {key: names for key, names in several.items() if key[0].count(".") == depth}
    if len(outermost) > 1:
        found = " and ".join(f"{names[0]} … {names[-1]}" for names in outermost.values())
        raise ValueError(f"stages may be {found}: name modules by a pattern instead")
    (((_, family), names),) = outermost.items()
    if family == "model" and names[-1] not in features:  # what puts out boxes
        names = names[:-1]
    if family in _STAGES or not features.keys() >= set(names):  # a stage not reached needs another example
        return [[name] for name in names]
    if features[names[-1]].layout == "tokens":  # of the last block, a head may read only the class token
        names = names[:-1]
    return [[list(group)[-1]] for _, group in groupby(names, lambda name: features[name].size)]


def last_child(model: nn.Module, name: str) -> str:
    """Resolve a Sequential to its last child, which takes the hook: a Sequential would run a new child as a step."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        child = next(reversed(module._modules))
        module, name = module._modules[child], f"{name}.{child}".strip(".")  # type: ignore[assignment]
    return name
