"""CPU kernels of the operators of `gating`: single passes over the features in blocks that fit the cache.

Within a block they are ordinary operations of PyTorch. Comparisons that write floats run at memory bandwidth, those
that write booleans do not. `argmax` is not vectorised; a comparison and a product with the indices are.

With `finds`, pools return the place of every maximum for their derivatives, -1 where several values are equal to it.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from cbam3d.attention.nd import CHANNELS_LAST

_CACHE = 2**22  # bytes of a block; less than two blocks are not split


def pool_positions(x: Tensor, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
    flat, shape = dense(x).flatten(2), (*x.shape[:2], *[1] * (x.ndim - 2))
    maximum = flat.amax(2)
    which = _which_position(flat, maximum) if finds else no_places(x)
    return flat.mean(2).view(shape), maximum.view(shape), which


def pool_positions_backward_(
    x: Tensor, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
) -> None:
    flat, out = dense(x).flatten(2), dx.flatten(2)
    d_mean, d_maximum = d_mean.flatten(1) / flat.shape[2], d_maximum.flatten(1)
    out.add_(d_mean[:, :, None])
    unique = which >= 0
    out.scatter_add_(2, which.clamp(min=0)[:, :, None], torch.where(unique, d_maximum, 0)[:, :, None])
    if unique.all():
        return
    n, c = (~unique).nonzero(as_tuple=True)
    at_maximum = (flat[n, c] == maximum.flatten(1)[n, c, None]).to(x.dtype)
    out[n, c] += at_maximum * (d_maximum[n, c] / at_maximum.sum(1))[:, None]


def pool_channels(x: Tensor, a: Tensor | None, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
    flat = dense(x).flatten(2)
    n, c, s = flat.shape
    mean, maximum = flat.new_empty(n, s), flat.new_empty(n, s)
    counting = _counting(c)
    found = torch.empty(n, len(counting), s, dtype=torch.float32)
    with torch.autocast("cpu", enabled=False):  # it would round the products of matrices
        for i, j in _blocks(flat):
            block = flat[i, :, j]
            if a is not None:
                block = block * a[i, :, None]
            torch.mean(block, 1, out=mean[i, j])
            torch.amax(block, 1, out=maximum[i, j])
            if finds:
                own = a is not None and block.dtype == torch.float32  # no longer needed
                equal = _equal(block, maximum[i, None, j], block if own else None)
                torch.matmul(counting, equal, out=found[i, :, j])
    shape = (n, 1, *x.shape[2:])
    which = _unique(found.unbind(1)) if finds else no_places(x)
    return mean.view(shape), maximum.view(shape), which


def pool_channels_backward_(
    x: Tensor, a: Tensor | None, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
) -> Tensor:
    flat, out = dense(x).flatten(2), dx.flatten(2)
    d_mean, d_maximum = d_mean.flatten(1) / flat.shape[1], d_maximum.flatten(1)
    unique = which >= 0
    at = which.clamp(min=0)
    of_unique = torch.where(unique, d_maximum, 0)
    da = None
    if a is None:
        out.add_(d_mean[:, None])
        out.scatter_add_(1, at[:, None], of_unique[:, None])
    else:
        out.addcmul_(a[:, :, None], d_mean[:, None])
        out.scatter_add_(1, at[:, None], (of_unique * a.gather(1, at))[:, None])
        with torch.autocast("cpu", enabled=False):
            da = torch.matmul(flat, d_mean[:, :, None])[:, :, 0].to(_wide(x))
        da.scatter_add_(1, at, (flat.gather(1, at[:, None])[:, 0] * of_unique).to(da.dtype))
    if not unique.all():
        n, s = (~unique).nonzero(as_tuple=True)
        features = flat[n, :, s]
        gated = features if a is None else features * a[n]
        at_maximum = (gated == maximum.flatten(1)[n, s, None]).to(x.dtype)
        d_gated = at_maximum * (d_maximum[n, s] / at_maximum.sum(1))[:, None]
        out[n, :, s] += d_gated if a is None else d_gated * a[n]
        if da is not None:
            da.index_add_(0, n, (features * d_gated).to(da.dtype))
    return _as_gate(da, x, a)


def scale(x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    flat, out, plane = x.flatten(2), y.flatten(2), _plane(b)
    for i, j in _blocks(flat):
        _scale_block(flat[i, :, j], a if a is None else a[i], plane if plane is None else plane[i, j], out[i, :, j])
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
    """Zeros for sums over positions."""
    return None if a is None else flat.new_zeros(flat.shape[:2], dtype=_wide(flat))


def _wide(x: Tensor) -> torch.dtype:
    """In which many terms are added: at least float32."""
    return torch.promote_types(x.dtype, torch.float32)


def _as_gate(sums: Tensor | None, x: Tensor, a: Tensor | None) -> Tensor:
    """Sums as the gradient of a gate; empty without one."""
    return x.new_empty(0) if sums is None or a is None else sums.to(a.dtype)


def _blocks(flat: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of the first and the last axis of (N, C, S) that fit the cache, with all of the middle one."""
    n, c, s = flat.shape
    size = flat.numel() * flat.element_size()
    columns = max(1, (size if size < 2 * _CACHE else _CACHE) // max(1, c * flat.element_size()))
    samples = max(1, columns // max(1, s))
    for i in range(0, n, samples):
        for j in range(0, s, columns):
            yield slice(i, i + samples), slice(j, j + columns)


def _which_position(flat: Tensor, maximum: Tensor) -> Tensor:
    """The position of each channel's maximum, (N, C); -1 where several, or none of nan, are equal to it."""
    n, c, s = flat.shape
    counting = _counting(s).T
    found = torch.empty(n, c, counting.shape[1], dtype=torch.float32)
    with torch.autocast("cpu", enabled=False):
        for here in _blocks(flat.transpose(1, 2)):
            found[here] = torch.matmul(_equal(flat[here], maximum[here][:, :, None]), counting)
    return _unique(found.unbind(2))


def _counting(count: int) -> Tensor:
    """Rows whose products with the result of `_equal` sum the matching indices, digit by digit, and count them."""
    indices, bits = torch.arange(count), _exact_bits()
    digits = [indices >> shift & 2**bits - 1 for shift in range(0, max(1, (count - 1).bit_length()), bits)]
    return torch.stack([*digits, torch.ones_like(indices)]).float()


def _exact_bits() -> int:
    """Of integers that products of float32 matrices keep, which may be computed in bfloat16
    (`torch.set_float32_matmul_precision`)."""
    precision = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    return 24 if precision in ("none", "ieee") else 8


def _equal(block: Tensor, maximum: Tensor, out: Tensor | None = None) -> Tensor:
    """1 where they are equal, else 0, as float32."""
    return torch.eq(block, maximum, out=torch.empty(block.shape, dtype=torch.float32) if out is None else out)


def _unique(found: Sequence[Tensor]) -> Tensor:
    """Indices, of their digits, where the count, which comes last, is 1; else -1."""
    lowest, *higher, counts = found
    indices, bits = lowest.long(), _exact_bits()
    for place, digit in enumerate(higher, 1):
        indices += digit.long() << bits * place
    return torch.where(counts == 1, indices, -1)


def no_places(x: Tensor) -> Tensor:
    """In place of the places of maxima, where no derivative wants them or it finds them again."""
    return torch.empty(0, dtype=torch.int64, device=x.device)
