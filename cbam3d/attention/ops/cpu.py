"""CPU kernels of the operators of `gating`: single passes over the features in blocks that fit the cache.

Within a block they are ordinary operations of PyTorch. Comparisons that write floats run at memory bandwidth, those
that write booleans do not.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from cbam3d.attention.nd import CHANNELS_LAST

_CACHE = 2**20  # bytes of a block; less than two blocks are not split


def pool_positions(x: Tensor) -> tuple[Tensor, Tensor]:
    flat, shape = dense(x).flatten(2), (*x.shape[:2], *[1] * (x.ndim - 2))
    return flat.mean(2).view(shape), flat.amax(2).view(shape)


def pool_positions_backward_(x: Tensor, maximum: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor) -> None:
    flat, out = dense(x).flatten(2), dx.flatten(2)
    maximum, d_mean, d_maximum = (one.flatten(1)[:, :, None] for one in (maximum, d_mean / flat.shape[2], d_maximum))
    for here in _rows(flat):
        block, block_out = flat[here], out[here]
        at_maximum = torch.eq(block, maximum[here], out=torch.empty_like(block))
        share = d_maximum[here] / at_maximum.sum(2, keepdim=True)
        block_out.addcmul_(at_maximum, share).add_(d_mean[here])


def pool_channels(x: Tensor, a: Tensor | None) -> tuple[Tensor, Tensor]:
    flat = dense(x).flatten(2)
    n, _, s = flat.shape
    mean, maximum = flat.new_empty(n, s), flat.new_empty(n, s)
    for i, j in _blocks(flat):
        block = flat[i, :, j]
        if a is not None:
            block = block * a[i, :, None]
        torch.mean(block, 1, out=mean[i, j])
        torch.amax(block, 1, out=maximum[i, j])
    shape = (n, 1, *x.shape[2:])
    return mean.view(shape), maximum.view(shape)


def pool_channels_backward_(
    x: Tensor, a: Tensor | None, maximum: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
) -> Tensor:
    flat, out = dense(x).flatten(2), dx.flatten(2)
    n, c, s = flat.shape
    maximum, d_mean, d_maximum = (plane.reshape(n, s) for plane in (maximum, d_mean / c, d_maximum))
    da = _sums(flat, a)
    for i, j in _blocks(flat):
        block, block_out = flat[i, :, j], out[i, :, j]
        gated = block if a is None else block * a[i, :, None]
        at_maximum = torch.eq(gated, maximum[i, None, j], out=torch.empty_like(block) if a is None else gated)
        share = d_maximum[i, j] / at_maximum.sum(1)
        d_gated = torch.addcmul(d_mean[i, None, j], at_maximum, share[:, None], out=at_maximum)
        if a is None or da is None:
            block_out.add_(d_gated)
        else:
            block_out.addcmul_(d_gated, a[i, :, None])
            da[i] += d_gated.mul_(block).sum(2)
    return _as_gate(da, x, a)


def scale(x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    _scale(x.flatten(2), a, _plane(b), y.flatten(2))
    return y


def scale_backward(x: Tensor, a: Tensor | None, b: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, grad = dense(x), dense(grad)
    dx = torch.empty_like(x)
    flat, flat_grad, out, plane = x.flatten(2), grad.flatten(2), dx.flatten(2), _plane(b)
    da = _sums(flat, a)
    db = None if plane is None else torch.empty_like(plane)
    with torch.autocast("cpu", enabled=False):  # it would round the products of matrices
        for i, j in _blocks(flat):
            block, block_grad, block_out = flat[i, :, j], flat_grad[i, :, j], out[i, :, j]
            product = torch.mul(block, block_grad, out=block_out)
            if db is not None:
                db[i, j] = product.sum(1) if a is None else torch.matmul(a[i, None], product)[:, 0]
            if da is not None:
                da[i] += product.sum(2) if plane is None else torch.matmul(product, plane[i, j, None])[:, :, 0]
            _scale_block(block_grad, a if a is None else a[i], plane if plane is None else plane[i, j], block_out)
    return dx, _as_gate(da, x, a), x.new_empty(0) if db is None or b is None else db.view(b.shape)


def dense(x: Tensor) -> Tensor:
    """x, or a contiguous copy unless its positions are dense in memory: (N, C, S) is a view then."""
    layout = CHANNELS_LAST.get(x.ndim, torch.contiguous_format)
    return x if x.is_contiguous() or x.is_contiguous(memory_format=layout) else x.contiguous()


def _scale(flat: Tensor, a: Tensor | None, plane: Tensor | None, out: Tensor) -> None:
    for i, j in _blocks(flat):
        _scale_block(flat[i, :, j], a if a is None else a[i], plane if plane is None else plane[i, j], out[i, :, j])


def _scale_block(block: Tensor, a: Tensor | None, plane: Tensor | None, out: Tensor) -> None:
    if plane is None:
        torch.mul(block, 1 if a is None else a[:, :, None], out=out)
        return
    torch.mul(block, plane[:, None], out=out)
    if a is not None:
        out.mul_(a[:, :, None])


def _plane(b: Tensor | None) -> Tensor | None:
    """(N, 1, *S) -> (N, S)."""
    return None if b is None else b.flatten(1)


def _sums(flat: Tensor, a: Tensor | None) -> Tensor | None:
    """Zeros for sums over positions, at least in float32."""
    return None if a is None else flat.new_zeros(flat.shape[:2], dtype=torch.promote_types(flat.dtype, torch.float32))


def _as_gate(sums: Tensor | None, x: Tensor, a: Tensor | None) -> Tensor:
    """Sums as the gradient of a gate; empty without one."""
    return x.new_empty(0) if sums is None or a is None else sums.to(a.dtype)


def _blocks(flat: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of samples and positions of (N, C, S), of all channels, that fit the cache."""
    n, c, s = flat.shape
    size = flat.numel() * flat.element_size()
    columns = max(1, (size if size < 2 * _CACHE else _CACHE) // (c * flat.element_size()))
    samples = max(1, columns // s)
    for i in range(0, n, samples):
        for j in range(0, s, columns):
            yield slice(i, i + samples), slice(j, j + columns)


def _rows(flat: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of samples and channels of (N, C, S), of all positions, that fit the cache where they can."""
    n, c, s = flat.shape
    size = flat.numel() * flat.element_size()
    rows = max(1, (size if size < 2 * _CACHE else _CACHE) // max(1, s * flat.element_size()))
    samples = max(1, rows // c)
    for i in range(0, n, samples):
        for j in range(0, c, rows):
            yield slice(i, i + samples), slice(j, j + rows)
