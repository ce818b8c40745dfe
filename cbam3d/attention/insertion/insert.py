"""Insertion of attention into an existing network.

An inserted block is a child of the module whose output it changes, called `inserted_attention`, and runs
in a forward hook; at stochastic depth (`drop_path`) in a hook before it, as what is dropped has to be dropped with its
attention. So no module is replaced, existing keys of the state dict are unchanged, and only keys with
`.inserted_attention.` are new. This package's `ResNet` has a slot for it in each block, which is used instead. In a
image network that runs on clips (`FrameNetwork`) the block sees the frames of a clip together.

What replaces norms by new ones (`torch.nn.SyncBatchNorm.convert_sync_batchnorm`, timm's `freeze_batch_norm_2d`, fusing
them into convolutions) leaves their hooks behind: do it first, then insert.
"""

import sys
import warnings
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.attention.catalog import attention_options, create_attention
from cbam3d.attention.gate import Init
from cbam3d.attention.insertion.clips import clip_frames_of
from cbam3d.attention.insertion.features import (
    Features,
    enlarge,
    evaluating,
    examples,
    noise_like,
    run,
    tensors_in,
    with_layouts,
)
from cbam3d.attention.insertion.positions import DROP_PATH, candidates, find_modules, last_child

NAME = "inserted_attention"


@dataclass(frozen=True)
class Insertion:
    """An attention block in a network, and the name of the module whose output it changes.

    Examples:
        >>> from cbam3d import insert_attention, list_insertions
        >>> from torchvision.models import resnet18
        >>> (first, *_) = list_insertions(insert_attention(resnet18(), "se"))
        >>> first.num_parameters
        580
    """

    where: str
    block: nn.Module

    @property
    def num_parameters(self) -> int:
        return sum(p.numel() for p in self.block.parameters())

    def __str__(self) -> str:
        return f"{self.where}: {type(self.block).__name__}, {self.num_parameters:,} parameters"


def insert_attention(
    model: nn.Module,
    mechanism: str,
    position: str | Sequence[str] = "residual",
    init: Init = "identity",
    example: Any = None,
    check: bool = True,
    **options: Any,
) -> nn.Module:
    """Insert attention into a network, in place.

    Args:
        model: any network for images or clips.
        mechanism: one of `list_attentions()`.
        position: where.
            "residual": inside every residual branch, before the addition (as in CBAM's and SE's papers); not in
            branches of a block that share their stochastic depth;
            "block": after every residual block;
            "stage": after the last block at each resolution;
            "last_stage": after the last of those;
            or a pattern of module names, as in "layer3.*.bn2"; or several of these: ["maxpool", "residual"].
        init: "identity" changes no output before training; "paper" is the mechanism's own initialisation.
        example: an input of the network, to find channels and rank by a forward pass without gradients; None to
            try images and clips of common sizes.
        check: run forward and backward on random input of the example's shape, and raise if a block that learns would
            receive no gradient, as nothing reads its features. Where the network fails on that input, nothing is
            checked.
        options: keyword arguments of the mechanism. num_frames of tam defaults to the example's at each position.

    Returns: the model. `list_insertions(model)` lists the blocks, `remove_attention(model)` removes them. Both discard
    what torch.compile has compiled in this process, which would go on without them.

    Raises:
        ValueError: an unknown mechanism or option, a network without such a position, a pattern that matches
            nothing or no feature map, attention that is already there or would not learn, or no example that the
            network accepts. The network is then unchanged.

    Examples:
        >>> from cbam3d import insert_attention, list_insertions
        >>> from torchvision.models import resnet18
        >>> model, x = resnet18().eval(), torch.randn(1, 3, 64, 64)
        >>> before = model(x)
        >>> torch.equal(insert_attention(model, "cbam")(x), before)
        True
        >>> list_insertions(model)[0].where
        'layer1.0.bn2'
    """
    known = attention_options(mechanism)
    with _uncompiled():
        hosts, inputs = _locate(model, position, example)
    blocks: list[nn.Module] = []
    for name, found in hosts.items():  # build all blocks before inserting any: an error leaves the model unchanged
        if isinstance(model.get_submodule(name), (nn.Sequential, nn.ModuleDict, nn.ModuleList)):
            raise ValueError(f"{name} runs its children itself, and would run a new one, too: name a module inside it")
        if found.calls > 1:
            raise ValueError(f"{name} is used {found.calls} times in one pass: attention there would run each time")
        if _attention_at(model, name) is not None:
            raise ValueError(f"{name} has attention already: call remove_attention first")
        clip_frames = clip_frames_of(model, name)
        size = found.size if clip_frames is None else (clip_frames.num_frames, *found.size)
        frames = {"num_frames": size[0]} if len(size) == 3 and "num_frames" in known else {}
        block = create_attention(mechanism, found.channels, len(size), init=init, **(frames | options))
        if clip_frames is not None:
            clip_frames.show_clips_to(block)
        blocks.append(block)
    for (name, found), block in zip(hosts.items(), blocks, strict=True):
        parent, _, child = name.rpartition(".")
        host: Any = model.get_submodule(name)
        like = next(chain(host.parameters(), model.parameters()), torch.empty(0))
        block.to(like.device, like.dtype).train(host.training)
        if _is_slot(model, name):
            setattr(model.get_submodule(parent), child, block)
        else:
            host.add_module(NAME, block)
            # Pickled with the model, the handle keeps the hook's id from being reused.
            # First of the hooks: those that are there already, as of `cut`, take what attention makes of the output.
            if child == DROP_PATH:
                handle = host.register_forward_pre_hook(_PRE_HOOKS[found.layout])
            else:
                handle = host.register_forward_hook(_HOOKS[found.layout], prepend=True)
            host._attention_handle = handle
    with _uncompiled():
        dead = _without_gradient(model, dict(zip(hosts, blocks, strict=True)), inputs) if check else []
    if dead:
        for name in hosts:
            _take_out(model, name)
        raise ValueError(
            f"{dead[0]}: attention there would receive no gradient, as nothing after it reads the features (only a "
            f"class token, perhaps); {len(dead)} of {len(hosts)} places; name others, or pass check=False"
        )
    _forget_compiled()
    return model


def remove_attention(model: nn.Module) -> nn.Module:
    """Remove, in place, what `insert_attention` inserted (and what fills the slots of this package's `ResNet`).

    Examples:
        >>> from cbam3d import insert_attention, list_insertions, remove_attention
        >>> from torchvision.models import resnet18
        >>> model = remove_attention(insert_attention(resnet18(), "se"))
        >>> list_insertions(model)
        []
    """
    for insertion in _insertions(model):
        _take_out(model, insertion.where)
    _forget_compiled()
    return model


def list_insertions(model: nn.Module) -> list[Insertion]:
    """Return every attention block that `remove_attention` would remove, in module order. A warning names one that no
    longer runs, as its host was replaced, by `SyncBatchNorm.convert_sync_batchnorm` for example.

    Examples:
        >>> from cbam3d import insert_attention, list_insertions
        >>> from torchvision.models import resnet18
        >>> model = insert_attention(resnet18(), "eca", position="last_stage")
        >>> [one.where for one in list_insertions(model)]
        ['layer4.1']
    """
    insertions = _insertions(model)
    dead = [one.where for one in insertions if not _is_slot(model, one.where) and not _hooks_at(model, one.where)]
    if dead and not isinstance(model, torch.fx.GraphModule):  # which calls blocks itself
        warnings.warn(
            f"attention at {dead[0]} ({len(dead)} of {len(insertions)} places) does not run: the module was replaced "
            "afterwards (by SyncBatchNorm.convert_sync_batchnorm, perhaps); remove_attention, then insert again",
            stacklevel=2,
        )
    return insertions


def _insertions(model: nn.Module) -> list[Insertion]:
    found = ((name, _attention_at(model, name)) for name, _ in model.named_modules())
    return [Insertion(name, block) for name, block in found if block is not None]


def _take_out(model: nn.Module, name: str) -> None:
    parent, _, child = name.rpartition(".")
    if _is_slot(model, name):
        setattr(model.get_submodule(parent), child, nn.Identity())
        return
    host = model.get_submodule(name)
    for hooks, number in _hooks_at(model, name):
        del hooks[number]
    host.__dict__.pop("_attention_handle", None)  # absent if another norm has replaced the host
    delattr(host, NAME)


def _without_gradient(model: nn.Module, blocks: dict[str, nn.Module], example: Any) -> list[str]:
    """Names of blocks that the network's output does not depend on, for a random input; empty if the network rejects
    it, or passes no gradient back at all (a head that starts at 0)."""
    outputs: dict[str, Tensor] = {}
    handles = [block.register_forward_hook(partial(_keep, outputs, name)) for name, block in blocks.items()]
    try:
        inputs = noise_like(example)
        sources = [x for x in tensors_in(inputs) if x.is_floating_point()]
        zeros = {name: noise_like(p) for name, p in model.named_parameters() if not p.any()}  # zeros block gradients
        with evaluating(model), torch.enable_grad():
            found = torch.func.functional_call(model, zeros, (inputs,))
        results = [y for y in tensors_in(found) if y.requires_grad]
        gradients = torch.autograd.grad(
            results, [*sources, *outputs.values()], [noise_like(y) for y in results], allow_unused=True
        )
        arrives = [gradient is not None and bool(gradient.any()) for gradient in gradients]
    except Exception:  # a head that rejects the example's size, tensors without data, non-differentiable operations
        return []
    finally:
        for handle in handles:
            handle.remove()
    if not any(arrives[: len(sources)]):
        return []
    return [name for name, reached in zip(outputs, arrives[len(sources) :], strict=True) if not reached]


def _keep(outputs: dict[str, Tensor], name: str, block: nn.Module, args: Any, output: Tensor) -> None:
    outputs[name] = output


def _attention_at(model: nn.Module, name: str) -> nn.Module | None:
    """Return the attention on this module's output, if any."""
    module = model.get_submodule(name)
    if _is_slot(model, name):
        return None if isinstance(module, nn.Identity) else module
    return module._modules.get(NAME)


def _hooks_at(model: nn.Module, name: str) -> list[tuple[dict[int, Any], int]]:
    """The hooks of a module that run its attention: where they are registered, and under which number."""
    host: Any = model.get_submodule(name)
    ours = {*_HOOKS.values(), *_PRE_HOOKS.values()}
    registered = (host._forward_hooks, host._forward_pre_hooks)
    return [(hooks, number) for hooks in registered for number, hook in hooks.items() if hook in ours]


def _uncompiled() -> AbstractContextManager[Any]:
    """Where a compiled network runs as it is written, with the hooks of the moment."""
    return torch.compiler.set_stance("force_eager") if "torch._dynamo" in sys.modules else nullcontext()


def _forget_compiled() -> None:
    """Discard what torch.compile has compiled in this process: it would go on without hooks that came later."""
    if "torch._dynamo" in sys.modules:
        torch._dynamo.reset()


def _is_slot(model: nn.Module, name: str) -> bool:
    """Whether this is the slot in a block of this package's `ResNet`."""
    parent, _, child = name.rpartition(".")
    return child == "attention" and hasattr(model.get_submodule(parent), "has_attention_slot")


def _locate(model: nn.Module, position: str | Sequence[str], example: Any) -> tuple[dict[str, Features], Any]:
    """Find the modules whose output to change, their features, and the first example that reaches them all."""
    kind, failure = type(model).__name__, "it has no convolution to guess an input from"
    for inputs in [example] if example is not None else examples(model):
        larger = [run(model, enlarge(inputs))]
        if larger[0].error is not None:
            larger.append(run(model, enlarge(inputs, 2)))
        features, others, error = run(model, inputs)  # last: a network on frames knows the number of its last clip
        for other in larger:
            features = with_layouts(features, other.features)
        names = dict.fromkeys(
            last_child(model, name) for name in find_modules(model, position, features, error is None)
        )
        if names and names.keys() <= features.keys():  # a head that rejects the input does not matter
            return {name: features[name] for name in names}, inputs
        if error is None and names:
            name = next(name for name in names if name not in features)
            shape = f", but a tensor of shape {others[name]}" if name in others else ""
            tokens = ": tokens of unknown height and width" if len(others.get(name, ())) == 3 else ""
            others_do = "" if tokens else candidates(features)
            raise ValueError(f"{name} does not output a feature map of an image or a clip{shape}{tokens}{others_do}")
        if error is None:
            several = sum(len(shape) == 3 for shape in others.values()) > len(features)
            tokens = " (its modules output tokens of unknown height and width)" if several else ""
            raise ValueError(
                f"nothing to attach to: no position {position!r} in {kind}{tokens}; name modules by a pattern instead"
                f"{candidates(features)}"
            )
        if isinstance(inputs, Tensor):  # not a guessed list of pathways
            failure = f"with {tuple(inputs.shape)} {type(error).__name__}: {error}".partition("\n")[0]
    raise ValueError(f"{kind} accepts none of the inputs tried, give example=…; the last failure: {failure}")


# Hooks are module-level functions, so that a model stays picklable.


def _attend(host: nn.Module, args: Any, output: Tensor) -> Tensor:
    return host.get_submodule(NAME)(output)


def _attend_channels_last(host: nn.Module, args: Any, output: Tensor) -> Tensor:
    return host.get_submodule(NAME)(output.movedim(-1, 1)).movedim(1, -1)


def _attend_tokens(host: nn.Module, args: Any, output: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
    tokens, size = output
    count = size[0] * size[1] * size[2]
    extra, patches = tokens.split([tokens.shape[1] - count, count], dim=1)  # a class token, if any
    clip = patches.transpose(1, 2).unflatten(2, tuple(size))
    patches = host.get_submodule(NAME)(clip).flatten(2).transpose(1, 2)
    return torch.cat([extra, patches], dim=1), size


def _attend_before(host: nn.Module, args: Any) -> Tensor:
    return _attend(host, args, args[0])


def _attend_before_channels_last(host: nn.Module, args: Any) -> Tensor:
    return _attend_channels_last(host, args, args[0])


_HOOKS = {"channels_first": _attend, "channels_last": _attend_channels_last, "tokens": _attend_tokens}
_PRE_HOOKS = {"channels_first": _attend_before, "channels_last": _attend_before_channels_last}
