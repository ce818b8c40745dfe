"""Attention put into a network that is already there.

An inserted block is a child of the module whose output it changes, called `inserted_attention`, and acts
through a forward hook. So no module is replaced, every key of the state dict stays as it was, and only keys
with `.inserted_attention.` are new. Our own `ResNet` has a slot in each block for this, which is used instead.

`torch.nn.SyncBatchNorm.convert_sync_batchnorm` makes new norms and drops their hooks: convert first, then insert.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from itertools import groupby
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cbam3d.attention.catalog import attention_options, create_attention

NAME = "inserted_attention"
POSITIONS = ("residual", "block", "stage", "last_stage")
Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Insertion:
    """One block in a network: the module whose output it changes, and what it is."""

    where: str
    block: nn.Module

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.block.parameters())

    def __str__(self) -> str:
        return f"{self.where}: {type(self.block).__name__}, {self.num_parameters:,} parameters"


@dataclass(frozen=True)
class _Features:
    """What a module puts out: channels, spatial size, and in which order they lie."""

    shape: tuple[int, ...]  # of the tensor
    channels: int
    size: tuple[int, ...]
    layout: Layout
    calls: int = 1  # of the module, in one pass


def insert_attention(
    model: nn.Module,
    mechanism: str,
    position: str | Sequence[str] = "residual",
    init: str = "identity",
    example: Any = None,
    **options: Any,
) -> nn.Module:
    """Put attention into a network, in place.

    Args:
        model: any network of images or clips.
        mechanism: one of `list_attentions()`.
        position: where.
            "residual": inside every residual branch, before the addition (as in the papers);
            "block": after every residual block;
            "stage": after the last block at each resolution;
            "last_stage": after the last of those;
            or patterns of module names, as in "layer3.*.bn2" or ["features.4", "features.6"].
        init: "identity" changes no output until something is learned; "paper" is the mechanism's own start.
        example: an input of the network, to find channels and rank by a run without gradients. None: images
            and clips of common sizes are tried.
        options: keyword arguments of the mechanism. num_frames of tam is that of the example at each place.

    Returns: the model. `list_insertions(model)` tells what was put where, `remove_attention(model)` undoes it.

    Raises:
        ValueError: an unknown mechanism or option, a network without such a position, a pattern that matches
            nothing or no feature map, attention that is there already, or no example that the network takes.
    """
    known = attention_options(mechanism)
    hosts = _locate(model, position, example)
    blocks: list[nn.Module] = []
    for name, found in hosts.items():  # build every block before one goes in: a refusal leaves the model as it was
        if isinstance(model.get_submodule(name), (nn.Sequential, nn.ModuleDict, nn.ModuleList)):
            raise ValueError(f"{name} runs its children itself, a new one would become a step: name a module in it")
        if found.calls > 1:
            raise ValueError(f"{name} is used {found.calls} times in one pass: attention there would act each time")
        if _attention_at(model, name) is not None:
            raise ValueError(f"{name} has attention already: remove_attention takes it out")
        frames = {"num_frames": found.size[0]} if len(found.size) == 3 and "num_frames" in known else {}
        blocks.append(create_attention(mechanism, found.channels, len(found.size), init=init, **(frames | options)))
    like = next(model.parameters(), torch.empty(0))
    for (name, found), block in zip(hosts.items(), blocks, strict=True):
        parent, _, child = name.rpartition(".")
        host: Any = model.get_submodule(name)
        block.to(like.device, like.dtype).train(model.training)
        if _is_slot(model, name):
            setattr(model.get_submodule(parent), child, block)
        else:
            host.add_module(NAME, block)
            # The handle is kept: pickled with the model, it keeps the hook's number from being given out again.
            host._attention_handle = host.register_forward_hook(_HOOKS[found.layout])
    return model


def remove_attention(model: nn.Module) -> nn.Module:
    """Take out, in place, what `insert_attention` put in (and what fills the slots of our own `ResNet`)."""
    for insertion in list_insertions(model):
        parent, _, child = insertion.where.rpartition(".")
        if _is_slot(model, insertion.where):
            setattr(model.get_submodule(parent), child, nn.Identity())
        else:
            host: Any = model.get_submodule(insertion.where)
            host._attention_handle.remove()
            del host._attention_handle
            delattr(host, NAME)
    return model


def list_insertions(model: nn.Module) -> list[Insertion]:
    """Every attention block that `remove_attention` would take out, in the order of the modules."""
    found = ((name, _attention_at(model, name)) for name, _ in model.named_modules())
    return [Insertion(name, block) for name, block in found if block is not None]


def _attention_at(model: nn.Module, name: str) -> nn.Module | None:
    """The attention that changes this module's output."""
    module = model.get_submodule(name)
    if _is_slot(model, name):
        return None if isinstance(module, nn.Identity) else module
    return module._modules.get(NAME)


def _is_slot(model: nn.Module, name: str) -> bool:
    """Whether this is the slot in a block of our own ResNet."""
    parent, _, child = name.rpartition(".")
    return child == "attention" and hasattr(model.get_submodule(parent), "has_attention_slot")


# ---- where ----------------------------------------------------------------------------------------------


def _locate(model: nn.Module, position: str | Sequence[str], example: Any) -> dict[str, _Features]:
    """The modules whose output is to be changed, and what that is. Tries examples until one reaches them all."""
    failure = "it has no convolution, from which an input could be guessed"
    for inputs in [example] if example is not None else _examples(model):
        features, error = _run(model, inputs)
        features = _with_layouts(features, _run(model, _enlarge(inputs))[0] if example is None else {})
        names = dict.fromkeys(_last_child(model, name) for name in _find(model, position, features))
        if names and names.keys() <= features.keys():  # a head that refuses the input does not matter
            return {name: features[name] for name in names}
        if error is None and names:
            name = next(name for name in names if name not in features)
            raise ValueError(f"{name} puts out no feature map of an image or a clip")
        if error is None:
            raise ValueError(
                f"nothing to attach to: no position {position!r} in {_type(model)}; name modules by a pattern instead"
            )
        failure = f"{type(error).__name__}: {error}".partition("\n")[0]
    raise ValueError(f"{_type(model)} takes no input that was tried, give example=…; the last failure: {failure}")


def _find(model: nn.Module, position: str | Sequence[str], features: dict[str, _Features]) -> list[str]:
    """The names of the modules at a position."""
    if position == "residual":
        return [end for _, end in _residual_blocks(model)]
    if position == "block":
        return [block for block, _ in _residual_blocks(model)]
    if position in ("stage", "last_stage"):
        stages = _stages(model, features)
        return [name for stage in (stages[-1:] if position == "last_stage" else stages) for name in stage]
    names = []
    for pattern in [position] if isinstance(position, str) else position:
        matched = [name for name, _ in model.named_modules() if name and fnmatchcase(name, pattern)]
        if not matched:
            known = ", ".join(POSITIONS)
            raise ValueError(f"{pattern!r} is no position ({known}) and matches no module of {_type(model)}")
        names += matched
    return names


def _residual_blocks(model: nn.Module) -> Iterator[tuple[str, str]]:
    """Name of each residual block, and of the module in it whose output is added to the shortcut."""
    for name, module in model.named_modules():
        if (end := _branch_end(module)) is not None:
            yield name, f"{name}.{end}".strip(".")


def _branch_end(block: nn.Module) -> str | None:
    """The child that ends the residual branch, for the families of blocks that are known."""
    children = block._modules
    if hasattr(block, "has_attention_slot"):  # our own
        return "attention"
    if "branch2" in children and hasattr(block, "branch_fusion"):  # pytorchvideo
        return "branch2"
    if hasattr(block, "downsample"):  # torchvision's images and clips, timm, 3D-ResNets-PyTorch
        for name in ("bn3", "conv3", "bn2", "conv2"):
            child = children.get(name)
            if child is not None and (name.startswith("bn") or isinstance(child, nn.Sequential)):
                behind = list(children)[list(children).index(name) + 1 :]
                return None if any(other.startswith("conv") for other in behind) else name  # pre-activation: no
    if getattr(block, "use_res_connect", False):  # torchvision's mobile networks and EfficientNet
        return "block" if "block" in children else "conv"
    if hasattr(block, "layer_scale") and "block" in children:  # torchvision's ConvNeXt
        return "block"
    return None


def _stages(model: nn.Module, features: dict[str, _Features]) -> list[list[str]]:
    """The modules that end a stage, in order; parallel pathways of one stage together."""
    layers = [
        name for name, module in model.named_modules() if name.split(".")[-1] in _LAYERS and list(module.children())
    ]
    if layers:
        return [[name] for name in layers]
    pathways = [name for name, module in model.named_modules() if hasattr(module, "res_blocks")]
    if pathways:
        return [list(group) for _, group in groupby(pathways, lambda name: name.split(".multipathway")[0])]
    for trunk in ("features", "blocks", "stages"):
        if trunk in model._modules:
            names = [f"{trunk}.{name}" for name, _ in model.get_submodule(trunk).named_children()]
            if not features.keys() >= set(names):
                return []
            return [[list(group)[-1]] for _, group in groupby(names, lambda name: features[name].size)]
    return []


_LAYERS = {f"layer{i}" for i in range(1, 9)}


def _last_child(model: nn.Module, name: str) -> str:
    """A Sequential's output is its last child's: the hook goes there, as a new child would become a step of it."""
    module = model.get_submodule(name)
    while isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward and len(module):
        child = next(reversed(module._modules))
        module, name = module._modules[child], f"{name}.{child}".strip(".")  # type: ignore[assignment]
    return name


def _type(model: nn.Module) -> str:
    return type(model).__name__


# ---- what the modules put out ---------------------------------------------------------------------------


def _run(model: nn.Module, inputs: Any) -> tuple[dict[str, _Features], Exception | None]:
    """Run the network once, in evaluation mode and without gradients: what each module put out, and how it failed."""
    training = [module for module in model.modules() if module.training]
    features: dict[str, _Features] = {}

    def note(name: str):
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if (found := _describe(module, output)) is not None:
                features[name] = replace(found, calls=features[name].calls + 1 if name in features else 1)

        return hook

    model.eval()
    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad():
            model(inputs)
    except Exception as error:  # a network refuses a size in its own way
        return features, error
    finally:
        for handle in handles:
            handle.remove()
        for module in training:
            module.training = True
    return features, None


def _examples(model: nn.Module) -> Iterator[Any]:
    """Small inputs first; then those that networks of a fixed size expect."""
    conv = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), None)
    if conv is None:
        return
    if isinstance(conv, nn.Conv2d):
        sizes = [(64, 64), (96, 96), (224, 224)]
    else:
        sizes = [
            (8, 64, 64),
            (16, 64, 64),
            (16, 112, 112),
            (13, 182, 182),
            (8, 224, 224),
            (16, 224, 224),
            (32, 224, 224),
        ]
    for size in sizes:
        clip = torch.zeros(1, conv.in_channels, *size, device=conv.weight.device, dtype=conv.weight.dtype)
        yield clip
        if len(size) == 3 and size[0] % 4 == 0:
            yield [clip[:, :, ::4], clip]  # SlowFast's two pathways


def _describe(module: nn.Module, output: Any) -> _Features | None:
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor) and output[0].ndim == 3:
        tokens, size = output  # MViT: (N, [1 +] T·H·W, C) and (T, H, W)
        if isinstance(size, (tuple, list)) and len(size) == 3:
            return _Features(tuple(tokens.shape), tokens.shape[2], tuple(size), "tokens")
    if not isinstance(output, Tensor) or output.ndim not in (4, 5):
        return None
    parts = list(module.modules())
    widths = {m.normalized_shape[-1] for m in parts if isinstance(m, nn.LayerNorm)}
    widths |= {m.out_features for m in parts if isinstance(m, nn.Linear)}
    convolves = any(isinstance(m, (nn.Conv2d, nn.Conv3d)) for m in parts)
    if not convolves and output.shape[-1] in widths and output.shape[1] not in widths:  # Swin: (N, *S, C)
        return _last(output.shape)
    return _first(output.shape)


def _first(shape: Sequence[int]) -> _Features:
    return _Features(tuple(shape), shape[1], tuple(shape[2:]), "channels_first")


def _last(shape: Sequence[int]) -> _Features:
    return _Features(tuple(shape), shape[-1], tuple(shape[1:-1]), "channels_last")


def _enlarge(inputs: Any) -> Any:
    """A larger input: every axis behind the channels grows."""
    if isinstance(inputs, list):
        return [_enlarge(pathway) for pathway in inputs]
    size = [2 * inputs.shape[2], *inputs.shape[3:]] if inputs.ndim == 5 else [*inputs.shape[2:]]
    size[-2:] = [n + 64 for n in size[-2:]]
    return inputs.new_zeros(*inputs.shape[:2], *size)


def _with_layouts(features: dict[str, _Features], larger: dict[str, _Features]) -> dict[str, _Features]:
    """Which axis holds the channels, seen from a larger input: the one that did not grow. Else the guess stays."""
    sure = dict(features)
    for name, found in features.items():
        other = larger.get(name)
        if found.layout == "tokens" or other is None or len(other.shape) != len(found.shape):
            continue
        same = [axis for axis in range(1, len(found.shape)) if found.shape[axis] == other.shape[axis]]
        if same == [1]:
            sure[name] = replace(_first(found.shape), calls=found.calls)
        elif same == [len(found.shape) - 1]:
            sure[name] = replace(_last(found.shape), calls=found.calls)
    return sure


# ---- hooks: module-level functions, so that a model stays picklable --------------------------------------


def _attend(host: nn.Module, args: Any, output: Tensor) -> Tensor:
    return host.get_submodule(NAME)(output)


def _attend_channels_last(host: nn.Module, args: Any, output: Tensor) -> Tensor:
    return host.get_submodule(NAME)(output.movedim(-1, 1)).movedim(1, -1)


def _attend_tokens(host: nn.Module, args: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    tokens, size = output
    count = size[0] * size[1] * size[2]
    extra, patches = tokens.split([tokens.shape[1] - count, count], dim=1)  # a class token, where there is one
    clip = patches.transpose(1, 2).unflatten(2, tuple(size))
    patches = host.get_submodule(NAME)(clip).flatten(2).transpose(1, 2)
    return torch.cat([extra, patches], dim=1), size


_HOOKS = {"channels_first": _attend, "channels_last": _attend_channels_last, "tokens": _attend_tokens}
