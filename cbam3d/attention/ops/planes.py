"""Convolutions of pooled planes, which have one or two channels, on CPUs.

PyTorch's kernels vectorise over channels and gain little from two of them: one of 7x7x7 taps took as long as the rest
of a CBAM block. Here the positions of a block become output channels, of a convolution whose stride is the block:

    y[block · q + o] = Σ_k w[k] x[block · q + o + k] = Σ_m v[o, m] x[block · q + m],    v[o, m] = w[m - o]

The kernels v are larger than w by the block less one along every axis, and zero there; it takes a fifth of the time all
the same, and its derivatives a sixth. torch.compile keeps it as an operator (`torch.ops.cbam3d.convolve_planes`).
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import conv_flop_count, register_flop_formula

from cbam3d.attention.nd import CONV
from cbam3d.attention.ops.gating import LIBRARY, must_be_plain

_LEAST = 2**13  # values; with fewer, blocks are single positions
_CONV: dict[int, Callable[..., Tensor]] = {2: F.conv2d, 3: F.conv3d}


class _OnBlocks:
    """Of a convolution with stride 1 and zero padding that preserves the size, what replaces `_conv_forward`."""

    def _conv_forward(self, planes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        if planes.device.type != "cpu" or must_be_plain(planes):
            return super()._conv_forward(planes, weight, bias)  # type: ignore[misc]
        dtype = planes.dtype
        if torch.is_autocast_enabled("cpu") and dtype != torch.float64:
            dtype = torch.get_autocast_dtype("cpu")
        out: Any = _Convolve.apply(planes.to(dtype), weight.to(dtype))
        return out if bias is None else out + bias.to(dtype).reshape(-1, *[1] * (planes.ndim - 2))


class PlaneConv2d(_OnBlocks, CONV[2]):
    """`torch.nn.Conv2d` for planes."""


class PlaneConv3d(_OnBlocks, CONV[3]):
    """`torch.nn.Conv3d` for planes."""


PLANE_CONV: dict[int, type[nn.Module]] = {2: PlaneConv2d, 3: PlaneConv3d}


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, planes: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(planes, weight)
        return torch.ops.cbam3d.convolve_planes(planes, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        planes, weight = ctx.saved_tensors
        convolve, derive = torch.ops.cbam3d.convolve_planes, torch.ops.cbam3d.convolve_planes_backward
        if torch.is_grad_enabled():  # for second derivatives
            convolve, derive = _convolve, _convolve_backward
        turned = weight.flip(tuple(range(2, weight.ndim))).transpose(0, 1)
        of_planes = convolve(grads[0], turned) if ctx.needs_input_grad[0] else None
        return of_planes, derive(planes, weight, grads[0]) if ctx.needs_input_grad[1] else None


def _convolve(planes: Tensor, weight: Tensor) -> Tensor:
    """Planes (N, C, *S) and weights (O, C, *K) -> (N, O, *S)."""
    block = _block_of(planes)
    out = _CONV[len(block)](_pad(planes, weight.shape[2:], block), _shifted(weight, block), stride=block)
    return _from_blocks(out, block, planes.shape[2:])


def _convolve_backward(planes: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    """The gradient of the weights."""
    taps, block = weight.shape[2:], _block_of(planes)
    zeros, ones = [0] * len(block), [1] * len(block)
    _, of_kernels, _ = torch.ops.aten.convolution_backward(
        _to_blocks(grad, block), _pad(planes, taps, block), _shifted(weight, block),
        None, block, zeros, ones, False, zeros, 1, [False, True, False],
    )  # fmt: skip
    return _unshifted(of_kernels, taps, block)


def _block_of(planes: Tensor) -> tuple[int, ...]:
    side = 4 if planes.numel() >= _LEAST else 1
    return (1, side, side)[-(planes.ndim - 2) :]


def _pad(planes: Tensor, taps: Sequence[int], block: Sequence[int]) -> Tensor:
    """Zeros around planes: half a kernel, and up to whole blocks."""
    sides = zip(planes.shape[2:], taps, block, strict=True)
    return F.pad(planes, [side for s, k, b in reversed([*sides]) for side in (k // 2, k // 2 + -s % b)])


def _shifted(weight: Tensor, block: Sequence[int]) -> Tensor:
    """A kernel for each position of a block: (O, C, *K) -> (O · |block|, C, *(K + block - 1))."""
    for axis, b in enumerate(block):
        if b == 1:
            continue
        after = 2 * (len(block) - 1 - axis)  # F.pad counts from the last axis
        weight = torch.stack([F.pad(weight, [0] * after + [i, b - 1 - i]) for i in range(b)], 1).flatten(0, 1)
    return weight


def _unshifted(kernels: Tensor, taps: Sequence[int], block: Sequence[int]) -> Tensor:
    """The adjoint of `_shifted`."""
    for axis, (k, b) in reversed([*enumerate(zip(taps, block, strict=True))]):
        if b == 1:
            continue
        parts = kernels.unflatten(0, (-1, b)).unbind(1)
        kernels = torch.stack([part.narrow(2 + axis, i, k) for i, part in enumerate(parts)]).sum(0)
    return kernels


def _from_blocks(out: Tensor, block: Sequence[int], size: Sequence[int]) -> Tensor:
    """(N, O · |block|, *Q) -> (N, O, *S), S at most block · Q."""
    ndim = len(block)
    if max(block) == 1:
        return out.contiguous()
    out = out.unflatten(1, (-1, *block))
    order = [axis for i in range(ndim) for axis in (2 + ndim + i, 2 + i)]
    out = out.permute(0, 1, *order).reshape(
        *out.shape[:2], *(q * b for q, b in zip(out.shape[-ndim:], block, strict=True))
    )
    return out[(slice(None), slice(None), *(slice(s) for s in size))].contiguous()


def _to_blocks(planes: Tensor, block: Sequence[int]) -> Tensor:
    """The adjoint of `_from_blocks`."""
    ndim = len(block)
    if max(block) == 1:
        return planes
    planes = F.pad(
        planes, [side for s, b in reversed([*zip(planes.shape[2:], block, strict=True)]) for side in (0, -s % b)]
    )
    for i, b in enumerate(block):
        planes = planes.unflatten(2 + 2 * i, (-1, b))
    inner, outer = (range(2 + first, 2 + 2 * ndim, 2) for first in (1, 0))
    return planes.permute(0, 1, *inner, *outer).flatten(1, 1 + ndim)


LIBRARY.define("convolve_planes(Tensor planes, Tensor weight) -> Tensor")
LIBRARY.define("convolve_planes_backward(Tensor planes, Tensor weight, Tensor grad) -> Tensor")
LIBRARY.impl("convolve_planes", _convolve, "CPU")
LIBRARY.impl("convolve_planes_backward", _convolve_backward, "CPU")


@torch.library.register_fake("cbam3d::convolve_planes", lib=LIBRARY)
def _convolved(planes: Tensor, weight: Tensor) -> Tensor:
    return planes.new_empty(planes.shape[0], weight.shape[0], *planes.shape[2:])


@torch.library.register_fake("cbam3d::convolve_planes_backward", lib=LIBRARY)
def _like_weight(planes: Tensor, weight: Tensor, grad: Tensor) -> Tensor:
    return weight.new_empty(weight.shape)


@register_flop_formula(torch.ops.cbam3d.convolve_planes)
def _flops(planes: list[int], weight: list[int], *, out_shape: list[int], **_: Any) -> int:
    return conv_flop_count(planes, weight, out_shape)


@register_flop_formula(torch.ops.cbam3d.convolve_planes_backward)
def _flops_backward(planes: list[int], weight: list[int], grad: list[int], **_: Any) -> int:
    return conv_flop_count(planes, weight, grad)
