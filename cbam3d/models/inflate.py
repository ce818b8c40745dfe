"""An image network inflated to clips: every layer in two dimensions becomes one in three.

As I3D: Carreira, Zisserman, CVPR 2017, https://arxiv.org/abs/1705.07750. Here every layer keeps all frames (I3D strides
along T as well), and kernels of one pixel stay so.
"""

from collections.abc import Callable
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from cbam3d.attention.insertion.features import evaluating, examples
from cbam3d.attention.nd import BATCH_NORM, CONV
from cbam3d.errors import reason_of

TAPS = 3  # along T


@torch.no_grad()
def inflate(model: nn.Module) -> nn.Module:
    """Inflate every layer of a network, in place.

    Args:
        model: (N, C, H, W) -> (N, K).

    Returns: the network, (N, C, T, H, W) -> (N, K).

    Raises:
        ValueError: a layer that cannot be inflated, or a network that does something else in two dimensions.

    Examples:
        >>> from cbam3d.models.inflate import inflate
        >>> from torchvision.models import resnet18
        >>> inflate(resnet18(num_classes=10))(torch.randn(2, 3, 8, 32, 32)).shape
        torch.Size([2, 10])
    """
    refusal = f"{type(model).__name__} cannot be inflated"
    training = {name: module.training for name, module in model.named_modules()}
    layers: dict[str, nn.Module] = {}
    noise = torch.Generator().manual_seed(0)
    zeros = [name for name, parameter in model.named_parameters() if not is_lazy(parameter) and not parameter.any()]
    with evaluating(model):
        for name in zeros:  # of branches that begin at zero nothing would be seen
            own = model.get_parameter(name)
            own.copy_(torch.rand(own.shape, generator=noise) + 0.5)
        example, of_image = _first_accepted(model)
        kernels: list[Tensor] = []
        done = ""
        for name, module in list(model.named_modules()):
            inflated = _INFLATED.get(type(module)) or _INFLATED_OF_TIMM.get(type(module).__name__)
            if done and name.startswith(f"{done}."):  # went with its parent
                continue
            if inflated is not None:
                done = name
                parent, _, child = name.rpartition(".")
                setattr(model.get_submodule(parent), child, layer := inflated(module))
                layers[name] = layer.eval()
                for new, old in zip(layer.parameters(), module.parameters(), strict=True):
                    new.requires_grad = old.requires_grad
                kernels += [layer.weight] if isinstance(layer, nn.Conv3d) else []
            elif type(module).__name__.endswith(("2d", "2dSame")):
                raise ValueError(f"{refusal}: {name} is a {type(module).__name__}; frames is the other way")
        still = example.unsqueeze(2).expand(-1, -1, 2 * TAPS, -1, -1)
        try:  # with only the middle taps set, a still clip is nothing but an image
            of_clip = model(still)
        except (RuntimeError, ValueError, TypeError, IndexError) as error:
            raise ValueError(f"{refusal}: {str(error).partition(chr(10))[0]}; frames is the other way") from None
        near = 1e-4 * float(of_image.abs().max())
        if of_clip.shape != of_image.shape or not torch.allclose(of_clip, of_image, rtol=1e-3, atol=near):
            raise ValueError(f"{refusal}, as it computes in two dimensions outside its layers; frames is the other way")
    for name in zeros:
        model.get_parameter(name).zero_()
    for name, layer in layers.items():
        layer.train(training[name])
    for kernel in kernels:
        middle = kernel[:, :, kernel.shape[2] // 2].clone()
        kernel.copy_(middle.unsqueeze(2).expand_as(kernel) / kernel.shape[2])
    return model


def _first_accepted(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Noise of the first size that a network takes, and its output."""
    failure = "no convolution to guess an input from"
    for zeros in examples(model):
        example = torch.rand(zeros.shape, generator=torch.Generator().manual_seed(0)).to(zeros)
        try:
            return example, model(example)
        except Exception as error:  # networks reject a size with any error
            failure = reason_of(error)
    raise ValueError(f"{type(model).__name__} cannot be inflated: {failure}")


def _conv(layer: nn.Conv2d) -> nn.Module:
    taps = TAPS if max(layer.kernel_size) > 1 else 1
    padding = layer.padding if isinstance(layer.padding, str) else (taps // 2, *layer.padding)
    found: Any = CONV[3](
        layer.in_channels,
        layer.out_channels,
        (taps, *layer.kernel_size),
        (1, *layer.stride),
        padding,
        (1, *layer.dilation),
        layer.groups,
        layer.bias is not None,
        layer.padding_mode,
        layer.weight.device,
        layer.weight.dtype,
    )
    found.weight.zero_()[:, :, taps // 2] = layer.weight
    if layer.bias is not None:
        found.bias.copy_(layer.bias)
    return found


def _norm(layer: nn.BatchNorm2d) -> nn.Module:
    found = BATCH_NORM[3](layer.num_features, layer.eps, layer.momentum, layer.affine, layer.track_running_stats)
    found.load_state_dict(layer.state_dict())
    like = next(chain(layer.parameters(), layer.buffers()), torch.empty(0))
    return found.to(like.device, like.dtype)


def _pair(size: Any) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else tuple(size)


def _pool(layer: Any) -> nn.Module:
    kernel, stride, padding = ((1, *_pair(layer.kernel_size)), (1, *_pair(layer.stride)), (0, *_pair(layer.padding)))
    if isinstance(layer, nn.MaxPool2d):
        return nn.MaxPool3d(kernel, stride, padding, (1, *_pair(layer.dilation)), ceil_mode=layer.ceil_mode)
    counts = {"count_include_pad": layer.count_include_pad, "divisor_override": layer.divisor_override}
    return nn.AvgPool3d(kernel, stride, padding, layer.ceil_mode, **counts)


def _global_pool(layer: Any) -> nn.Module:
    if layer.pool_type != "avg" or not layer.flatten:
        raise ValueError(f"global pooling of timm {layer.pool_type!r} cannot be inflated; frames is the other way")
    return nn.Sequential(nn.AdaptiveAvgPool3d(1), nn.Flatten())


_INFLATED: dict[type[nn.Module], Callable[[Any], nn.Module]] = {
    nn.Conv2d: _conv,
    nn.BatchNorm2d: _norm,
    nn.MaxPool2d: _pool,
    nn.AvgPool2d: _pool,
    nn.AdaptiveAvgPool2d: lambda layer: nn.AdaptiveAvgPool3d((1, *_pair(layer.output_size))),
    nn.AdaptiveMaxPool2d: lambda layer: nn.AdaptiveMaxPool3d((1, *_pair(layer.output_size))),
    nn.Dropout2d: lambda layer: nn.Dropout3d(layer.p),
}
_INFLATED_OF_TIMM: dict[str, Callable[[Any], nn.Module]] = {"SelectAdaptivePool2d": _global_pool}
