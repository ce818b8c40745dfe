"""Fused gates, in few passes over memory.

Attention that pools its features, passes the pooled values through a small network and multiplies is
memory-bound: as separate PyTorch operations, forward and backward read and write the features some 25 times. Here the
forward pass reads them three times and writes once, and the backward pass reads four tensors and writes one, in
cache-sized blocks; products are never stored.

    a = channel gate of (mean, max of x over positions)                   (N, C)
    b = product of position gates of (mean, max of a·x over channels)     (N, 1, *S)
    y = a·b·x

As gates are non-negative, mean and maximum over channels of gated features are the gate times those of the features:
each position gate after the first works on planes alone.

`literal` computes the same with ordinary operations. It is used where the fused form does not apply: on GPUs (but see
`on_cuda`), in torch.compile and torch.export (which fuse themselves), under functorch, and for second derivatives.
Of tied maxima the first gets the gradient in the fused form; `literal` divides it among them.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from cbam3d.attention.gate import expand_as
from cbam3d.attention.nd import CHANNELS_LAST
from cbam3d.attention.ops import kernels as cpu_kernels
from cbam3d.attention.ops.eager import is_eager

_LEAST = 2**18  # elements; below, call overhead exceeds memory traffic
enabled = True  # False: always `literal`
on_cuda = False  # True: Triton kernels on GPUs, tested with its interpreter, but not yet timed on one


class PooledGate(Protocol):
    """A gate of pooled features: `gate` computes its values from means and maxima."""

    pools_max: bool  # whether it uses maxima

    def gate(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """Non-negative values, (N, C) for channels, or broadcastable to (N, 1, *S) for positions."""
        ...

    def parameters(self) -> Iterator[torch.nn.Parameter]: ...

    def buffers(self) -> Iterator[Tensor]: ...


def gated(x: Tensor, channel: PooledGate | None, positions: Sequence[PooledGate]) -> Tensor:
    """Apply a channel gate, then position gates, to features (N, C, *S); at least one gate."""
    if not _applies(x):
        return literal(x, channel, positions)
    gates = ([] if channel is None else [channel]) + list(positions)
    parameters = [p for gate in gates for p in gate.parameters() if p.requires_grad]
    if any(p._backward_hooks for p in parameters):  # they would run twice
        return literal(x, channel, positions)
    learns = torch.is_grad_enabled() and (x.requires_grad or bool(parameters))
    if not _is_flat(x):
        x = x.contiguous()
    return _Gated.apply(x, channel, tuple(positions), learns, *parameters)


def literal(x: Tensor, channel: PooledGate | None, positions: Sequence[PooledGate]) -> Tensor:
    """`gated` with ordinary operations."""
    if channel is not None:
        axes = tuple(range(2, x.ndim))
        mean = x.mean(axes)
        a = channel.gate(mean, x.amax(axes) if channel.pools_max else mean)
        x = x * expand_as(a, x).to(x.dtype)
    if positions:
        x = x * _positions(positions, x.mean(1, keepdim=True), x.amax(1, keepdim=True)).to(x.dtype)
    return x


def _positions(gates: Sequence[PooledGate], mean: Tensor, maximum: Tensor) -> Tensor:
    """The product of position gates, each applied to the previous ones' output."""
    first, *others = gates
    product = first.gate(mean, maximum)
    for gate in others:
        product = product * gate.gate(mean * product, maximum * product)
    return product


def _applies(x: Tensor) -> bool:
    if not enabled or not is_eager(x) or x.numel() < _LEAST:
        return False
    return x.device.type == "cpu" or (on_cuda and x.device.type == "cuda" and x.dtype != torch.float64)


def _is_flat(x: Tensor) -> bool:
    """Whether the positions are dense in memory, so that (N, C, S) is a view of x and of `empty_like(x)`."""
    return x.is_contiguous() or x.is_contiguous(memory_format=CHANNELS_LAST.get(x.ndim, torch.contiguous_format))


def _kernels_for(x: Tensor) -> Any:
    """The module with the kernels for the device of x."""
    if x.device.type == "cpu":
        return cpu_kernels
    from cbam3d.attention.ops import triton_kernels  # Triton comes with CUDA builds of PyTorch only

    return triton_kernels


class _Gated(torch.autograd.Function):
    """The fused form; the gates' parameters are arguments, so that autograd sees them."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        channel: PooledGate | None,
        positions: tuple[PooledGate, ...],
        learns: bool,
        *parameters: Tensor,
    ) -> Tensor:
        flat, kernels = x.flatten(2), _kernels_for(x)
        a, b, ctx.channel, ctx.positions, which = None, None, None, None, None
        if channel is not None:
            mean, maximum = kernels.pool_positions(flat, channel.pools_max)
            ctx.channel = _Small(channel.gate, mean, maximum, learns)
            a = ctx.channel.value.to(x.dtype)
        if positions:
            mean, maximum, which = kernels.pool_channels(flat, a, learns)
            ctx.positions = _Small(lambda m, h: _planes(x.shape, positions, m, h), mean, maximum, learns)
            b = ctx.positions.value.to(x.dtype)
        out = torch.empty_like(x)
        kernels.multiply(flat, a, b, out.flatten(2))
        ctx.save_for_backward(x, a, b, which, *parameters)
        ctx.gates = channel, positions
        device = x.device.type
        ctx.autocast = device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Any, ...]:
        if torch.is_grad_enabled():  # for second derivatives
            return _derive_literally(ctx, grads[0])
        with torch.autocast(ctx.autocast[0], enabled=False):  # backward itself may run under autocast
            return _derive(ctx, grads[0])


def _derive(ctx: Any, whole_grad: Tensor) -> tuple[Any, ...]:
    """The gradients of the arguments of `_Gated`."""
    x, a, b, which, *parameters = ctx.saved_tensors
    channel, _ = ctx.gates
    flat, grad, kernels = x.flatten(2), whole_grad.flatten(2), _kernels_for(x)
    of_parameters: dict[int, Tensor] = {}
    da, db = kernels.products(flat, grad, a, b)
    per_plane = per_channel = at_maximum = at_maximum_position = None  # each pooling's share of dx
    if ctx.positions is not None:
        d_mean, d_maximum = ctx.positions.derive(db, parameters, of_parameters)
        per_plane, at_maximum = (d_mean / x.shape[1]).to(x.dtype), d_maximum.to(x.dtype)
        if da is not None:
            da += kernels.weigh_positions(flat, per_plane)
            da.scatter_add_(1, which, (flat.gather(1, which[:, None])[:, 0] * at_maximum).to(da.dtype))
            at_maximum = at_maximum * a.gather(1, which)
    if ctx.channel is not None:
        d_mean, d_maximum = ctx.channel.derive(da, parameters, of_parameters)
        if channel.pools_max:
            at_maximum_position = d_maximum.to(x.dtype)
        else:
            d_mean = d_mean + d_maximum
        per_channel = (d_mean / flat.shape[2]).to(x.dtype)
    found = [of_parameters.get(id(parameter)) for parameter in parameters]
    if not ctx.needs_input_grad[0]:
        return None, None, None, None, *found
    dx = torch.empty_like(x)
    flat_dx = dx.flatten(2)
    kernels.combine(grad, a, b, per_channel, per_plane, flat_dx)
    if at_maximum is not None:
        flat_dx.scatter_add_(1, which[:, None], at_maximum[:, None])
    if ctx.channel is not None and at_maximum_position is not None:
        positions = kernels.positions_of(flat, ctx.channel.inputs[1])
        flat_dx.scatter_add_(2, positions[:, :, None], at_maximum_position[:, :, None])
    return dx, None, None, None, *found


def _derive_literally(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    """The same with ordinary operations, which can be differentiated again."""
    x, _, _, _, *parameters = ctx.saved_tensors
    channel, positions = ctx.gates
    buffers = [b for gate in (channel, *positions) if gate is not None for b in gate.buffers()]
    before = [b.clone() for b in buffers]
    with torch.autocast(*ctx.autocast):
        out = literal(x, channel, positions)
    for buffer, value in zip(buffers, before, strict=True):  # update batch statistics once
        buffer.data.copy_(value)
    wanted = [one for one in (x, *parameters) if one.requires_grad]
    derived = torch.autograd.grad(out, wanted, grad, create_graph=True, allow_unused=True)
    given = {id(one): d for one, d in zip(wanted, derived, strict=True)}
    found = [given.get(id(one)) for one in (x, *parameters)]
    return found[0], None, None, None, *found[1:]


class _Small:
    """A small network's output for pooled inputs, and its gradients."""

    def __init__(
        self, network: Callable[[Tensor, Tensor], Tensor], mean: Tensor, maximum: Tensor, learns: bool
    ) -> None:
        with torch.set_grad_enabled(learns):
            self.inputs = [one.detach().requires_grad_(learns) for one in (mean, maximum)]
            self.output = network(*self.inputs)
        self.value = self.output.detach()

    def derive(self, grad: Tensor, parameters: Sequence[Tensor], found: dict[int, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the gradients of the two inputs; those of parameters go to `found`, by id."""
        grad = grad.to(self.output.dtype)
        wanted = [*self.inputs, *parameters]
        mean, maximum, *others = torch.autograd.grad(self.output, wanted, grad, retain_graph=True, allow_unused=True)
        found |= {id(p): d for p, d in zip(parameters, others, strict=True) if d is not None}
        zeros = torch.zeros_like(self.inputs[0])
        return zeros if mean is None else mean, zeros if maximum is None else maximum


def _planes(shape: torch.Size, positions: Sequence[PooledGate], mean: Tensor, maximum: Tensor) -> Tensor:
    """The product of the position gates, (N, S), from pooled planes (N, S) of features of `shape`."""
    shape = torch.Size((shape[0], 1, *shape[2:]))
    return _positions(positions, mean.reshape(shape), maximum.reshape(shape)).expand(shape).flatten(1)
