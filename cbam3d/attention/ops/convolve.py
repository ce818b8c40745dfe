"""Convolutions of the pooled planes, which have very few channels."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.bfloat16 import is_affected
from cbam3d.attention.nd import CONV
from cbam3d.attention.ops.eager import is_eager

_FUNCTION: dict[int, Callable[..., Tensor]] = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


def convolve(conv: nn.Module, planes: Tensor) -> Tensor:
    """Apply a convolution with few channels, stride 1, an odd kernel and zero padding that preserves the size.

    On CPUs its input gradient is computed as a convolution with the flipped kernel: PyTorch's own is designed for
    many channels, and took 16 times as long for 2 -> 1 channels and 7x7x7.
    """
    hooked = conv._forward_hooks or conv._forward_pre_hooks or conv._backward_hooks or conv._backward_pre_hooks
    if not is_eager(planes) or planes.device.type != "cpu" or hooked or type(conv) not in CONV.values():
        return conv(planes)  # pruned or parametrised, too
    if isinstance(conv, nn.Conv3d) and is_affected(conv, planes):
        return conv(planes)
    weight: Any = conv.weight
    bias: Any = conv.bias
    dtype = planes.dtype
    if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
        dtype = torch.get_autocast_dtype("cpu")
    bias = None if bias is None else bias.to(dtype)
    return _Convolve.apply(planes.to(dtype), weight.to(dtype), bias, conv.padding)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, weight: Tensor, bias: Tensor | None, padding: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(planes, weight)
        ctx.padding, ctx.num_biases = padding, None if bias is None else list(bias.shape)
        return _FUNCTION[planes.ndim - 2](planes, weight, bias, padding=padding)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        planes, weight = ctx.saved_tensors
        ndim = planes.ndim - 2
        turned = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
        of_planes = _FUNCTION[ndim](grads[0], turned, padding=ctx.padding) if ctx.needs_input_grad[0] else None
        ones, zeros = [1] * ndim, [0] * ndim
        mask = [False, ctx.needs_input_grad[1], ctx.needs_input_grad[2]]
        _, of_weight, of_bias = torch.ops.aten.convolution_backward(
            grads[0], planes, weight, ctx.num_biases, ones, ctx.padding, ones, False, zeros, 1, mask
        )
        return of_planes, of_weight, of_bias, None
