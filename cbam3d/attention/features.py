"""What the modules of a network put out: channels, size, and which axis holds the channels."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

Layout = Literal["channels_first", "channels_last", "tokens"]


@dataclass(frozen=True)
class Features:
    """What a module puts out: channels, spatial size, and in which order they lie."""

    shape: tuple[int, ...]  # of the tensor
    channels: int
    size: tuple[int, ...]
    layout: Layout
    calls: int = 1  # of the module, in one pass


def run(model: nn.Module, inputs: Any) -> tuple[dict[str, Features], Exception | None]:
    """Run the network once, in evaluation mode and without gradients: what each module put out, and how it failed."""
    training = [module for module in model.modules() if module.training]
    features: dict[str, Features] = {}

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


def examples(model: nn.Module) -> Iterator[Any]:
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


def _describe(module: nn.Module, output: Any) -> Features | None:
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


def enlarge(inputs: Any) -> Any:
    """A larger input: every axis behind the channels grows."""
    if isinstance(inputs, list):
        return [enlarge(pathway) for pathway in inputs]
    size = [2 * inputs.shape[2], *inputs.shape[3:]] if inputs.ndim == 5 else [*inputs.shape[2:]]
    size[-2:] = [n + 64 for n in size[-2:]]
    return inputs.new_zeros(*inputs.shape[:2], *size)


def with_layouts(features: dict[str, Features], larger: dict[str, Features]) -> dict[str, Features]:
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
