"""The passes over the features (N, C, S) that fused gates take on a CPU: a block that fits the cache at a time."""

from collections.abc import Iterator

import torch
from torch import Tensor

_CACHE = 2 * 2**20  # bytes of a block


def pool_positions(flat: Tensor, with_max: bool) -> tuple[Tensor, Tensor]:
    """Mean and maximum over positions, (N, C) each; without `with_max` the second is the mean."""
    mean = flat.mean(2)
    return mean, flat.amax(2) if with_max else mean


def pool_channels(flat: Tensor, a: Tensor | None, wants_places: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and maximum of a·x over channels, (N, S) each, and the channel of the maximum."""
    n, c, s = flat.shape
    mean, highest = flat.new_empty(n, s), flat.new_empty(n, s)
    # of the channels that are equal to the maximum: the sum of their numbers, and how many they are
    found = torch.empty(n, 2, s) if wants_places else None
    counting = torch.stack([torch.arange(c, dtype=torch.float32), torch.ones(c)])
    for i, j in _blocks(flat):
        block = flat[i, :, j]
        if a is not None:
            block = block * a[i, :, None]
        torch.amax(block, 1, out=highest[i, j])
        torch.mean(block, 1, out=mean[i, j])
        if found is not None:
            equal = (block == highest[i, None, j]).to(torch.float32)
            torch.matmul(counting, equal, out=found[i, :, j])
    if found is None:
        return mean, highest, None
    which = found[:, 0].to(torch.int64)
    tied = found[:, 1] != 1  # or no number
    if tied.any():
        values = flat.movedim(1, 2)[tied]
        if a is not None:
            values = values * a[tied.nonzero()[:, 0]]
        which[tied] = values.argmax(1)
    return mean, highest, which


def multiply(flat: Tensor, a: Tensor | None, b: Tensor | None, out: Tensor) -> None:
    """x·a·b into `out`; one of the gates may be missing."""
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
            da[i] += product.sum(2) if b is None else torch.matmul(product, b[i, j, None])[:, :, 0]
    return da, db


def combine(
    grad: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    per_channel: Tensor | None,
    per_plane: Tensor | None,
    out: Tensor,
) -> None:
    """a·(grad·b + per_plane) + per_channel into `out`; what belongs to a missing gate is missing."""
    for n, s in _blocks(grad):
        block = out[n, :, s]
        if b is None or per_plane is None:
            torch.addcmul(per_channel[n, :, None], grad[n, :, s], a[n, :, None], out=block)  # type: ignore[index]
            continue
        torch.addcmul(per_plane[n, None, s], grad[n, :, s], b[n, None, s], out=block)
        if a is not None and per_channel is not None:
            block.mul_(a[n, :, None]).add_(per_channel[n, :, None])


def _blocks(flat: Tensor) -> Iterator[tuple[slice, slice]]:
    """Slices of samples and of positions of (N, C, S) that fit the cache."""
    n, c, s = flat.shape
    columns = max(1, _CACHE // (c * flat.element_size()))
    samples = max(1, columns // s)
    for i in range(0, n, samples):
        for j in range(0, s, columns):
            yield slice(i, i + samples), slice(j, j + columns)
