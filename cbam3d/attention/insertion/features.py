"""Module outputs of a network: channels, size, and the channel axis."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from cbam3d.attention.insertion.clips import ClipFrames

Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Features:
    """A module's output: channels, spatial size, and the order of its axes."""

    shape: tuple[int, ...]  # of the tensor
    channels: int
    size: tuple[int, ...]
    layout: Layout
    calls: int = 1  # of the module, in one forward pass


class Pass(NamedTuple):
    """Module outputs of one forward pass: feature maps, shapes of other tensors, and its error, if any."""

    features: dict[str, Features]
    others: dict[str, tuple[int, ...]]
    error: Exception | None


def run(model: nn.Module, inputs: Any) -> Pass:
    """Run the network once, in evaluation mode and without gradients."""
    features: dict[str, Features] = {}
    others: dict[str, tuple[int, ...]] = {}
    calls: Counter[str] = Counter()

    def note(name: str):
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            calls[name] += 1
            if (found := describe(module, output)) is not None:
                features[name] = found
            elif isinstance(output, Tensor):
                others[name] = tuple(output.shape)

        return hook

    handles = [module.register_forward_hook(note(name)) for name, module in model.named_modules()]
    try:
        with torch.no_grad(), evaluating(model):
            model(inputs)
    except Exception as error:  # networks reject a size with any error
        return Pass(features, others, error)
    finally:
        for handle in handles:
            handle.remove()
    return Pass({name: replace(found, calls=calls[name]) for name, found in features.items()}, others, None)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Set the network to evaluation mode within the context, and restore every module's mode after."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def tensors_in(values: Any) -> list[Tensor]:
    """The tensors in a tensor, a list, a tuple, or a mapping such as a model's output."""
    if isinstance(values, Tensor):
        return [values]
    several = values.values() if isinstance(values, Mapping) else values if isinstance(values, (list, tuple)) else ()
    return [tensor for value in several for tensor in tensors_in(value)]


def noise_like(values: Any) -> Any:
    """Replace floating-point tensors by reproducible random ones that require gradients."""
    if isinstance(values, Mapping):
        return {key: noise_like(value) for key, value in values.items()}
    if isinstance(values, (list, tuple)):
        noise = [noise_like(value) for value in values]
        return type(values)(*noise) if hasattr(values, "_fields") else type(values)(noise)
    if not isinstance(values, Tensor) or not values.is_floating_point():
        return values
    noise = torch.randn(values.shape, generator=torch.Generator().manual_seed(0))
    return noise.to(values.device, values.dtype).requires_grad_()


def examples(model: nn.Module) -> Iterator[Any]:
    """Yield example inputs: of the network's `input_size`, where it has one; else small ones first, then those that
    networks of a fixed size expect."""
    conv = next((m for m in model.modules() if isinstance(m, (nn.Conv2d, nn.Conv3d))), None)
    if conv is None:
        return
    if isinstance(own := getattr(model, "input_size", None), tuple):
        sizes = [own]
    elif isinstance(conv, nn.Conv2d):
        sizes = [(64, 64), (96, 96), (224, 224)]
        if any(isinstance(getattr(module, "clip_frames", None), ClipFrames) for module in model.modules()):
            sizes = [(8, *size) for size in sizes]
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


def describe(module: nn.Module, output: Any) -> Features | None:
    """What a module outputs, if that is a feature map; the order of its axes is guessed from its layers."""
    if isinstance(output, tuple) and len(output) == 2 and isinstance(output[0], Tensor) and output[0].ndim == 3:
        tokens, size = output  # MViT: (N, [1 +] T·H·W, C) and (T, H, W)
        if isinstance(size, (tuple, list)) and len(size) == 3:
            return Features(tuple(tokens.shape), tokens.shape[2], tuple(size), "tokens")
    if not isinstance(output, Tensor) or output.ndim not in (4, 5):
        return None
    parts = list(module.modules())
    widths = {m.normalized_shape[-1] for m in parts if isinstance(m, nn.LayerNorm)}
    widths |= {m.out_features for m in parts if isinstance(m, nn.Linear)}
    convolves = any(isinstance(m, (nn.Conv2d, nn.Conv3d)) for m in parts)
    if not convolves and output.shape[-1] in widths and output.shape[1] not in widths:  # Swin: (N, *S, C)
        return _last(output.shape)
    return _first(output.shape)


def _first(shape: Sequence[int]) -> Features:
    return Features(tuple(shape), shape[1], tuple(shape[2:]), "channels_first")


def _last(shape: Sequence[int]) -> Features:
    return Features(tuple(shape), shape[-1], tuple(shape[1:-1]), "channels_last")


def enlarge(inputs: Any, factor: int = 1) -> Any:
    """One larger input: twice the frames, `factor` times the height and width, or where that is 1, 32 more."""
    if isinstance(inputs, Mapping):
        return {key: enlarge(value, factor) for key, value in inputs.items()}
    if isinstance(inputs, (list, tuple)):
        return [enlarge(value, factor) for value in inputs]
    if not isinstance(inputs, Tensor) or inputs.ndim not in (4, 5):
        return inputs
    size = [n + 32 if factor == 1 else factor * n for n in inputs.shape[-2:]]
    return inputs.new_zeros(1, inputs.shape[1], *(2 * n for n in inputs.shape[2:-2]), *size)


def with_layouts(features: dict[str, Features], larger: dict[str, Features]) -> dict[str, Features]:
    """Find the channel axis from a larger input: the last axis grows where it is the width, not where it is channels.
    Where nothing grows, keep the guess."""
    sure = dict(features)
    for name, found in features.items():
        other = larger.get(name)
        if found.layout == "tokens" or other is None or len(other.shape) != len(found.shape):
            continue
        grew = [a != b for a, b in zip(found.shape, other.shape, strict=True)]
        if grew[-1] and not grew[1]:
            sure[name] = replace(_first(found.shape), calls=found.calls)
        elif grew[-2] and grew[-3] and not grew[-1]:
            sure[name] = replace(_last(found.shape), calls=found.calls)
    return sure
