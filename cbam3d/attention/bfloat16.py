"""A guard against a PyTorch defect: bfloat16 gradients of 3D convolutions on CPUs.

Where a kernel has more taps along T than the features have frames, with stride 1 and zero padding, the weight gradient
reads uninitialised memory: 3 taps and 2 frames, as in the last stage of every 3D ResNet on 16 frames. Seen in torch
2.9 to 2.15; docs/BFLOAT16.md has a report. Outputs are correct but for 3 channels a group; float32, float16 and 2D
convolutions are. With explicit padding everything is.
"""

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Conv3d(nn.Conv3d):
    """`torch.nn.Conv3d` with the guard."""

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        return _guarded(self, input, weight, bias)


def guard_conv3d(model: nn.Module) -> nn.Module:
    """Guard the 3D convolutions of any network, in place, against PyTorch's wrong weight gradients in bfloat16 on a CPU
    (docs/BFLOAT16.md); this package's already are.

    Needed before training in bfloat16 on a CPU, under autocast or not; `cbam3d train` calls it itself. Direct calls
    of `torch.nn.functional.conv3d` are not guarded.

    Args:
        model: any network.

    Returns: the model.

    Examples:
        >>> from cbam3d import guard_conv3d
        >>> conv = guard_conv3d(torch.nn.Conv3d(3, 8, 3, padding=1)).bfloat16()
        >>> conv(torch.randn(1, 3, 2, 8, 8).bfloat16()).sum().backward()
        >>> conv.weight.grad.isfinite().all().item()
        True
    """
    for module in model.modules():
        instance: Any = module
        if isinstance(module, nn.Conv3d) and type(module)._conv_forward is nn.Conv3d._conv_forward:
            instance._conv_forward = partial(_guarded, module)
        elif isinstance(module, nn.ConvTranspose3d):
            instance.forward = partial(_in_float32, module)
    return model


def is_affected(conv: nn.Conv3d | nn.ConvTranspose3d, x: Tensor) -> bool:
    """Whether the convolution's weight gradient, or with groups its output, would be wrong for this input, (N, C, T, H,
    W)."""
    taps, frames = conv.kernel_size[0], x.shape[-3]
    if x.device.type != "cpu" or taps <= frames or not (torch.is_grad_enabled() or conv.groups > 1):
        return False
    autocast = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16
    return x.dtype == torch.bfloat16 or (autocast and x.dtype == torch.float32)


def _guarded(conv: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    if conv.padding_mode != "zeros" or not is_affected(conv, x):
        return nn.Conv3d._conv_forward(conv, x, weight, bias)
    padded = F.pad(x, conv._reversed_padding_repeated_twice)
    return F.conv3d(padded, weight, bias, conv.stride, 0, conv.dilation, conv.groups)


def _in_float32(conv: nn.ConvTranspose3d, x: Tensor, output_size: list[int] | None = None) -> Tensor:
    """Run a transposed convolution in float32, as its padding cannot be made explicit."""
    if not is_affected(conv, x):
        return type(conv).forward(conv, x, output_size)
    layer: Any = conv
    with torch.autocast("cpu", enabled=False):
        x, weight, bias = x.float(), layer.weight.float(), None if layer.bias is None else layer.bias.float()
        beyond = layer._output_padding(
            x, output_size, layer.stride, layer.padding, layer.kernel_size, 3, layer.dilation
        )
        y = F.conv_transpose3d(x, weight, bias, layer.stride, layer.padding, beyond, layer.groups, layer.dilation)
    return y.to(torch.bfloat16)
