"""CPU kernels of the fused gates: passes over the features (N, C, S) in cache-sized blocks.

They use what PyTorch does fast there. Comparisons that write floats run at memory bandwidth, those that write booleans
do not; `argmax` is not vectorised, a comparison and a product with the indices are; a product (N, C, S) x (N, S, 1) is
ten times slower than the transposed one.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

_CACHE = 4 * 2**20  # bytes of a block; less than two blocks are not split


def pool_positions(flat: Tensor, with_max: bool) -> tuple[Tensor, Tensor]:
    """Mean and maximum over positions, (N, C) each; without `with_max` the second is the mean."""
    mean = flat.mean(2)
    return mean, flat.amax(2) if with_max else mean


def pool_channels(flat: Tensor, a: Tensor | None, wants_positions: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and maximum of a·x over channels, (N, S) each, and the index of the maximum."""
    n, c, s = flat.shape
    mean, maximum = flat.new_empty(n, s), flat.new_empty(n, s)
    found = torch.empty(n, 2, s) if wants_positions else None
    counting = _counting(c)
    for i, j in _blocks(flat):
        block = flat[i, :, j]
        if a is not None:
            block = block * a[i, :, None]
        torch.amax(block, 1, out=maximum[i, j])
        torch.mean(block, 1, out=mean[i, j])
        if found is not None:
            torch.matmul(counting, _equal(block, maximum[i, None, j]), out=found[i, :, j])
    if found is None:
        return mean, maximum, None

    def tied(where: Tensor) -> Tensor:
        values = flat.movedim(1, 2)[where]
        return values if a is None else values * a[where.nonzero()[:, 0]]

    return mean, maximum, _index_of(found, tied)


def positions_of(flat: Tensor, maximum: Tensor) -> Tensor:
    """Index of each channel's maximum, (N, C); the first of several."""
    n, c, s = flat.shape
    if s > 2**24:  # float32's largest exact integer
        return flat.argmax(2)
    found = torch.zeros(n, 2, c)
    counting = _counting(s)
    for i, j in _blocks(flat):
        found[i] += torch.matmul(counting[:, j], _equal(flat[i, :, j], maximum[i, :, None]).transpose(1, 2))
    return _index_of(found, lambda where: flat[where])


def weigh_positions(flat: Tensor, weights: Tensor) -> Tensor:
    """Σ_s of features (N, C, S) times weights (N, S): (N, C)."""
    return torch.bmm(weights[:, None], flat.transpose(1, 2))[:, 0]


def multiply(flat: Tensor, a: Tensor | None, b: Tensor | None, out: Tensor) -> None:
    """Write x·a·b to `out`; either gate may be None."""
    for n, s in _blocks(flat):
        gate = b[n, None, s] if a is None else a[n, :, None]  # type: ignore[index]
        torch.mul(flat[n, :, s], gate, out=out[n, :, s])
        if a is not None and b is not None:
            out[n, :, s].mul_(b[n, None, s])


def products(flat: Tensor, grad: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a, Σ_s grad·x·b, and of b, Σ_c grad·x·a."""
    n, c, s = flat.shape
    wide = torch.promote_types(flat.dtype, torch.float32)  # for sums over blocks
    da = None if a is None else torch.zeros(n, c, dtype=wide)
    db = None if b is None else flat.new_empty(n, s)
    for i, j in _blocks(flat):
        product = flat[i, :, j] * grad[i, :, j]
        if db is not None:
            db[i, j] = product.sum(1) if a is None else torch.matmul(a[i, None], product)[:, 0]
        if da is not None:
            da[i] += product.sum(2) if b is None else weigh_positions(product, b[i, j])
    return da, db


def combine(
    grad: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    per_channel: Tensor | None,
    per_plane: Tensor | None,
    out: Tensor,
) -> None:
    """Write a·(grad·b + per_plane) + per_channel to `out`, without the terms of a missing gate."""
    for n, s in _blocks(grad):
        block = out[n, :, s]
        if b is None or per_plane is None:
            torch.addcmul(per_channel[n, :, None], grad[n, :, s], a[n, :, None], out=block)  # type: ignore[index]
            continue
        torch.addcmul(per_plane[n, None, s], grad[n, :, s], b[n, None, s], out=block)
        if a is not None and per_channel is not None:
            block.mul_(a[n, :, None]).add_(per_channel[n, :, None])


def _counting(count: int) -> Tensor:
    """Rows whose product with the result of `_equal` is the sum of the matching indices, and their number."""
    return torch.stack([torch.arange(count, dtype=torch.float32), torch.ones(count)])


def _equal(block: Tensor, maximum: Tensor) -> Tensor:
    """1 where they are equal, else 0, as float32."""
    return torch.eq(block, maximum, out=torch.empty(block.shape))


def _index_of(found: Tensor, tied: Callable[[Tensor], Tensor]) -> Tensor:
    """Indices from sums and counts (N, 2, M); `tied` returns the values (K, L) where the maximum is not unique."""
    which = found[:, 0].to(torch.int64)
    unclear = found[:, 1] != 1  # or NaN
    if unclear.any():
        which[unclear] = tied(unclear).argmax(1)
    return which


def _blocks(flat: Tensor) -> Iterator[tuple[slice, slice]]:
    """Yield slices of samples and positions of (N, C, S) that fit the cache."""
    n, c, s = flat.shape
    size = n * c * s * flat.element_size()
    columns = max(1, (size if size < 2 * _CACHE else _CACHE) // (c * flat.element_size()))
    samples = max(1, columns // s)
    for i in range(0, n, samples):
        for j in range(0, s, columns):
            yield slice(i, i + samples), slice(j, j + columns)
