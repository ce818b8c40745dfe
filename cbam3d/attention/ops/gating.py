"""Operators of gates: pooling over positions and over channels, and scaling by their weights.

Attention that pools its features, passes the pooled values through a small network and multiplies is bound by memory.
Here every step and every derivative passes over the features once, and products are not stored.

    x, mean, maximum = pool_positions(x)      # over positions, (N, C, 1, …) each
    a = …                                     # a weight per channel, (N, C, 1, …)
    x, mean, maximum = pool_channels(x, a)    # of a·x over channels, (N, 1, *S) each
    b = …                                     # a weight per position, (N, 1, *S)
    y = scale(x, a, b)                        # a·b·x

The pools return x itself, for the next of these functions and nothing else: the gradient of x then passes through them
in turn, and each adds its share in place, where separate gradients would be written and summed.

The kernels are operators of PyTorch (`torch.ops.cbam3d`), for CPUs and in Triton. Ordinary operations replace them in
torch.compile, which fuses those even better; in exported programs, so that a file needs PyTorch alone; under functorch;
and on devices without a kernel.

Examples:
    >>> from cbam3d.attention.ops.gating import pool_positions, scale
    >>> features = torch.randn(2, 64, 8, 14, 14)
    >>> features, mean, maximum = pool_positions(features)
    >>> scale(features, torch.sigmoid(mean + maximum)).shape
    torch.Size([2, 64, 8, 14, 14])
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from cbam3d.attention.nd import amax, spatial_axes
from cbam3d.attention.ops import cpu, reference

on_cuda = False  # True: the Triton kernels on GPUs; tested with Triton's interpreter, but not yet timed on a GPU

LIBRARY = torch.library.Library("cbam3d", "DEF")
_OPERATORS = torch.ops.cbam3d


def mean_positions(x: Tensor) -> Tensor:
    """Mean of x (N, C, *S) over positions, (N, C)."""
    axes = spatial_axes(x)
    if is_plain(x) or x.dtype == torch.float16:  # whose sums overflow
        return x.mean(axes)
    return x.sum(axes) / x.shape[2:].numel()  # its gradient, unlike the mean's, is a view


def pool_positions(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C, *S), and its mean and maximum over positions, (N, C, 1, …) each."""
    spatial_axes(x)
    return (x, *reference.pool_positions(x)) if is_plain(x) else _PoolPositions.apply(x)  # type: ignore[return-value]


def pool_channels(x: Tensor, a: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
    """x, and the mean and maximum of a·x over channels, (N, 1, *S) each, for weights a (N, C, 1, …) or None for 1."""
    a = _of_channels(a, x)
    return (x, *reference.pool_channels(x, a)) if is_plain(x) else _PoolChannels.apply(x, a)  # type: ignore[return-value]


def pool_axis(x: Tensor, axis: int) -> tuple[Tensor, Tensor, Tensor]:
    """x (N, C, *S), and its mean and maximum over an axis above 0, of size 1 there."""
    if is_plain(x):
        return x, x.mean(axis, keepdim=True), amax(x, [axis], keepdim=True)
    before, after = x.shape[:axis], x.shape[axis + 1 :]
    is_last = axis == x.ndim - 1
    planes = x.reshape(before.numel(), 1 if is_last else x.shape[axis], x.shape[axis] if is_last else after.numel())
    planes, mean, maximum = pool_positions(planes) if is_last else pool_channels(planes)
    return planes.view(x.shape), mean.view(*before, 1, *after), maximum.view(*before, 1, *after)


def scale(x: Tensor, a: Tensor | None = None, b: Tensor | None = None) -> Tensor:
    """a·b·x, for weights of channels a (N, C, 1, …) and of positions b, broadcastable to (N, 1, *S), or None for 1."""
    a = _of_channels(a, x)
    if b is not None:
        b = b.to(x.dtype).expand(x.shape[0], 1, *x.shape[2:])
    return reference.scale(x, a, b) if is_plain(x) else _Scale.apply(x, a, b)  # type: ignore[return-value]


def multiply(x: Tensor, attention_map: Tensor) -> Tensor:
    """x times a map that is broadcastable to it."""
    if attention_map.shape[2:].numel() == 1:
        return scale(x, attention_map)
    if attention_map.shape[1] == 1:
        return scale(x, None, attention_map)
    return x * attention_map.to(x.dtype)


def _of_channels(a: Tensor | None, x: Tensor) -> Tensor | None:
    """Weights of channels as (N, C), in the dtype of x: mixed precision computes them in another."""
    return None if a is None else a.to(x.dtype).flatten(1).expand(x.shape[:2])


def is_plain(x: Tensor) -> bool:
    """Whether to use ordinary operations."""
    if torch.compiler.is_compiling() or must_be_plain(x):
        return True
    return x.device.type != "cpu" and not (on_cuda and x.device.type == "cuda" and x.dtype != torch.float64)


def must_be_plain(x: Tensor) -> bool:
    """Whether operators of our own would fail: in exports, in forward-mode differentiation, under functorch and for
    subclasses of tensors."""
    if torch.compiler.is_exporting() or torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]
        return True
    if torch.compiler.is_compiling():
        return False
    functorch = torch._C._functorch.peek_interpreter_stack() is not None  # pyright: ignore
    forward_mode = forward_ad._current_level >= 0
    return functorch or forward_mode or type(x) not in (Tensor, nn.Parameter) or not x.is_floating_point()


def _derives_plainly(*grads: Tensor) -> bool:
    """Whether to derive by ordinary operations: for second derivatives, and for many gradients at once
    (`is_grads_batched`)."""
    return torch.is_grad_enabled() or any(map(torch._C._functorch.is_legacy_batchedtensor, grads))  # pyright: ignore


class _PoolPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> tuple[Tensor, ...]:
        mean, maximum, which = _OPERATORS.pool_positions(x, ctx.needs_input_grad[0])
        ctx.save_for_backward(x, maximum, which)
        return x, mean, maximum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        dx, *of_pooled = grads
        if _derives_plainly(*grads):
            x, maximum, _ = ctx.saved_tensors
            return dx + reference.pool_positions_backward(x, maximum, *of_pooled)
        dx = cpu.dense(dx)
        _OPERATORS.pool_positions_backward_(*ctx.saved_tensors, *of_pooled, dx)
        return dx


class _PoolChannels(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor | None) -> tuple[Tensor, ...]:
        mean, maximum, which = _OPERATORS.pool_channels(x, a, any(ctx.needs_input_grad))
        ctx.save_for_backward(x, a, maximum, which)
        return x, mean, maximum

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor | None]:
        dx, *of_pooled = grads
        if _derives_plainly(*grads):
            x, a, maximum, _ = ctx.saved_tensors
            more, da = reference.pool_channels_backward(x, a, maximum, *of_pooled)
            dx = dx + more
        else:
            dx = cpu.dense(dx)
            da = _OPERATORS.pool_channels_backward_(*ctx.saved_tensors, *of_pooled, dx)
        return dx, da if ctx.needs_input_grad[1] else None


class _Scale(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, a, b)
        return _OPERATORS.scale(x, a, b)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        derive: Any = reference.scale_backward if _derives_plainly(*grads) else _OPERATORS.scale_backward
        dx, da, db = derive(*ctx.saved_tensors, grads[0])
        _, has_a, has_b = ctx.needs_input_grad
        return dx, da if has_a else None, db if has_b else None


class _Fake:
    """Shapes, dtypes and layouts of the outputs."""

    @staticmethod
    def pool_positions(x: Tensor, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
        shape = (*x.shape[:2], *[1] * (x.ndim - 2))
        places = x.shape[:2] if finds and x.device.type == "cpu" else 0
        return x.new_empty(shape), x.new_empty(shape), x.new_empty(places, dtype=torch.int64)

    @staticmethod
    def pool_positions_backward_(
        x: Tensor, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
    ) -> None: ...

    @staticmethod
    def pool_channels(x: Tensor, a: Tensor | None, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
        shape = (x.shape[0], 1, *x.shape[2:])
        places = (x.shape[0], x.shape[2:].numel()) if finds and x.device.type == "cpu" else 0
        return x.new_empty(shape), x.new_empty(shape), x.new_empty(places, dtype=torch.int64)

    @staticmethod
    def pool_channels_backward_(
        x: Tensor, a: Tensor | None, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
    ) -> Tensor:
        return x.new_empty(0 if a is None else a.shape)

    @staticmethod
    def scale(x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
        return torch.empty_like(cpu.dense(x))

    @staticmethod
    def scale_backward(x: Tensor, a: Tensor | None, b: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        da, db = (x.new_empty(0 if gate is None else gate.shape) for gate in (a, b))
        return torch.empty_like(cpu.dense(x)), da, db


def _on_gpu(name: str) -> Any:
    """The GPU kernel of an operator."""

    def run(*arguments: Any) -> Any:
        from cbam3d.attention.ops import triton_kernels  # Triton comes with CUDA builds of PyTorch only

        return getattr(triton_kernels, name)(*arguments)

    return run


for _schema in (
    "pool_positions(Tensor x, bool finds) -> (Tensor, Tensor, Tensor)",
    "pool_positions_backward_(Tensor x, Tensor maximum, Tensor which, Tensor d_mean, Tensor d_maximum, Tensor(a!) dx)"
    " -> ()",
    "pool_channels(Tensor x, Tensor? a, bool finds) -> (Tensor, Tensor, Tensor)",
    "pool_channels_backward_(Tensor x, Tensor? a, Tensor maximum, Tensor which, Tensor d_mean, Tensor d_maximum,"
    " Tensor(a!) dx) -> Tensor",
    "scale(Tensor x, Tensor? a, Tensor? b) -> Tensor",
    "scale_backward(Tensor x, Tensor? a, Tensor? b, Tensor grad) -> (Tensor, Tensor, Tensor)",
):
    _name = LIBRARY.define(_schema)
    LIBRARY.impl(_name, getattr(cpu, _name), "CPU")
    LIBRARY.impl(_name, _on_gpu(_name), "CUDA")
    torch.library.register_fake(f"cbam3d::{_name}", getattr(_Fake, _name), lib=LIBRARY)
