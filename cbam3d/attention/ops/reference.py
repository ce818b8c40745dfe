"""The operators of `gating` in plain PyTorch, and their derivatives: what every kernel is held against.

x is (N, C, *S), a is (N, C), b is (N, 1, *S). Of tied maxima each gets an equal share of the gradient, as of
`torch.amax`; compiled, the first gets all of it (`nd.amax`).
"""

from torch import Tensor

from cbam3d.attention.nd import amax


def pool_positions(x: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and maximum over positions, (N, C, 1, …) each."""
    axes = tuple(range(2, x.ndim))
    return x.mean(axes, keepdim=True), amax(x, axes, keepdim=True)


def pool_positions_backward(x: Tensor, maximum: Tensor, d_mean: Tensor, d_maximum: Tensor) -> Tensor:
    at_maximum = (x == maximum).to(x.dtype)
    share = d_maximum / at_maximum.sum(tuple(range(2, x.ndim)), keepdim=True)
    return at_maximum * share + d_mean / x.shape[2:].numel()


def pool_channels(x: Tensor, a: Tensor | None) -> tuple[Tensor, Tensor]:
    """Mean and maximum of a·x over channels, (N, 1, *S) each."""
    gated = _times(x, a)
    return gated.mean(1, keepdim=True), amax(gated, [1], keepdim=True)


def pool_channels_backward(
    x: Tensor, a: Tensor | None, maximum: Tensor, d_mean: Tensor, d_maximum: Tensor
) -> tuple[Tensor, Tensor]:
    """The gradients of x and a (empty without a)."""
    at_maximum = (_times(x, a) == maximum).to(x.dtype)
    d_gated = at_maximum * (d_maximum / at_maximum.sum(1, keepdim=True)) + d_mean / x.shape[1]
    d_a = x.new_empty(0) if a is None else (x * d_gated).sum(tuple(range(2, x.ndim)))
    return _times(d_gated, a), d_a


def scale(x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
    """x·a·b."""
    gated = _times(x, a)
    return gated if b is None else gated * b


def scale_backward(x: Tensor, a: Tensor | None, b: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The gradients of x, a and b (empty without them)."""
    product = x * grad
    d_a = x.new_empty(0) if a is None else (product if b is None else product * b).sum(tuple(range(2, x.ndim)))
    d_b = x.new_empty(0) if b is None else _times(product, a).sum(1, keepdim=True)
    return scale(grad, a, b), d_a, d_b


def _times(x: Tensor, a: Tensor | None) -> Tensor:
    return x if a is None else x * a.reshape(*a.shape, *[1] * (x.ndim - 2))
