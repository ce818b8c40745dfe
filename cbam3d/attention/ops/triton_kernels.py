"""GPU kernels of the operators of `gating`, in Triton.

Features may be contiguous or channels last, in float32, float16 or bfloat16; sums are accumulated in float32. Each
program works on a tile of channels and positions whose longer side is contiguous in memory.
"""

# pyright: reportMissingParameterType=false, reportUnknownParameterType=false
# (Triton compiles its kernels from their source, and gives their parameters types of its own)

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from cbam3d.attention.ops.cpu import dense, no_places

_SPLIT = 4096  # positions of a channel per program


@triton.jit
def _tile(n, c, s, stride_n, stride_c, stride_s):
    return n * stride_n + c.to(tl.int64)[:, None] * stride_c + s.to(tl.int64)[None, :] * stride_s


@triton.jit
def _gated(values, a, n, c, C, HAS_A: tl.constexpr):
    """a·x."""
    if HAS_A:
        return values * tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    else:
        return values


@triton.jit
def _pool_positions(x, sums, maximum, C, S, split, xn, xc, xs, BC: tl.constexpr, BS: tl.constexpr):
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    total = tl.zeros([BC], tl.float32)
    top = tl.full([BC], float("-inf"), tl.float32)
    for start in range(part * split, min(S, (part + 1) * split), BS):
        s = start + tl.arange(0, BS)
        inside = (c < C)[:, None] & (s < S)[None, :]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(values, 1)
        top = tl.maximum(top, tl.max(tl.where(inside, values, float("-inf")), 1))
    place = (n * tl.num_programs(2) + part) * C + c
    tl.store(sums + place, total, mask=c < C)
    tl.store(maximum + place, top, mask=c < C)


@triton.jit
def _count_maxima(x, maximum, counts, C, S, split, xn, xc, xs, BC: tl.constexpr, BS: tl.constexpr):
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(2)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    top = tl.load(maximum + n * C + c, mask=c < C, other=0.0).to(tl.float32)
    total = tl.zeros([BC], tl.float32)
    for start in range(part * split, min(S, (part + 1) * split), BS):
        s = start + tl.arange(0, BS)
        inside = (c < C)[:, None] & (s < S)[None, :]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        total += tl.sum(tl.where(inside & (values == top[:, None]), 1.0, 0.0), 1)
    tl.store(counts + (n * tl.num_programs(2) + part) * C + c, total, mask=c < C)


@triton.jit
def _add_of_positions(x, maximum, mean, share, dx, C, S, xn, xc, xs, dn, dc, ds, BC: tl.constexpr, BS: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    s = tl.program_id(2) * BS + tl.arange(0, BS)
    inside = (c < C)[:, None] & (s < S)[None, :]
    values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
    top = tl.load(maximum + n * C + c, mask=c < C, other=0.0).to(tl.float32)
    more = tl.where(values == top[:, None], tl.load(share + n * C + c, mask=c < C, other=0.0)[:, None], 0.0)
    more += tl.load(mean + n * C + c, mask=c < C, other=0.0)[:, None]
    at = dx + _tile(n, c, s, dn, dc, ds)
    tl.store(at, tl.load(at, mask=inside, other=0.0).to(tl.float32) + more, mask=inside)


@triton.jit
def _pool_channels(x, a, mean, maximum, C, S, xn, xc, xs, HAS_A: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr):
    n = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    total = tl.zeros([BS], tl.float32)
    top = tl.full([BS], float("-inf"), tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None] & (s < S)[None, :]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        values = _gated(values, a, n, c, C, HAS_A)
        total += tl.sum(values, 0)
        top = tl.maximum(top, tl.max(tl.where(inside, values, float("-inf")), 0))
    tl.store(mean + n * S + s, total / C, mask=s < S)
    tl.store(maximum + n * S + s, top, mask=s < S)


@triton.jit
def _add_of_channels(
    x, a, d_mean, d_maximum, dx, da, C, S, xn, xc, xs, dn, dc, ds,
    HAS_A: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s = part * BS + tl.arange(0, BS)
    top = tl.full([BS], float("-inf"), tl.float32)  # again, as the stored maximum may have been rounded
    count = tl.zeros([BS], tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside & (s < S)[None, :], other=0.0).to(tl.float32)
        values = tl.where(inside, _gated(values, a, n, c, C, HAS_A), float("-inf"))
        before, top = top, tl.maximum(top, tl.max(values, 0))
        count = tl.where(before == top, count, 0.0) + tl.sum(tl.where(values == top[None, :], 1.0, 0.0), 0)
    share = tl.load(d_maximum + n * S + s, mask=s < S, other=0.0).to(tl.float32) / count
    mean = tl.load(d_mean + n * S + s, mask=s < S, other=0.0).to(tl.float32) / C
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None] & (s < S)[None, :]
        features = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        values = _gated(features, a, n, c, C, HAS_A)
        more = tl.where(inside & (values == top[None, :]), share[None, :], 0.0) + mean[None, :]
        if HAS_A:
            products = tl.where(inside, features * more, 0.0)
            tl.store(da + (n * tl.num_programs(1) + part) * C + c, tl.sum(products, 1), mask=c < C)
            more *= tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
        at = dx + _tile(n, c, s, dn, dc, ds)
        tl.store(at, tl.load(at, mask=inside, other=0.0).to(tl.float32) + more, mask=inside)


@triton.jit
def _scale(
    x, a, b, y, C, S, xn, xc, xs, yn, yc, ys,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    s = tl.program_id(2) * BS + tl.arange(0, BS)
    inside = (c < C)[:, None] & (s < S)[None, :]
    values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
    if HAS_A:
        values *= tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    if HAS_B:
        values *= tl.load(b + n * S + s, mask=s < S, other=0.0).to(tl.float32)[None, :]
    tl.store(y + _tile(n, c, s, yn, yc, ys), values, mask=inside)


@triton.jit
def _scale_backward(
    x, g, a, b, dx, da, db, C, S, xn, xc, xs, gn, gc, gs, dn, dc, ds,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s = part * BS + tl.arange(0, BS)
    total = tl.zeros([BS], tl.float32)
    weights = tl.load(b + n * S + s, mask=s < S, other=0.0).to(tl.float32) if HAS_B else tl.full([BS], 1.0, tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None] & (s < S)[None, :]
        features = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        grad = tl.load(g + _tile(n, c, s, gn, gc, gs), mask=inside, other=0.0).to(tl.float32)
        product = features * grad
        grad *= weights[None, :]
        if HAS_A:
            of_channels = tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
            tl.store(da + (n * tl.num_programs(1) + part) * C + c, tl.sum(product * weights[None, :], 1), mask=c < C)
            total += tl.sum(product * of_channels, 0)
            grad *= of_channels
        else:
            total += tl.sum(product, 0)
        tl.store(dx + _tile(n, c, s, dn, dc, ds), grad, mask=inside)
    if HAS_B:
        tl.store(db + n * S + s, total, mask=s < S)


def pool_positions(x: Tensor, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
    flat = dense(x).flatten(2)
    n, c, s = flat.shape
    tile, parts, shape = _sides(flat), triton.cdiv(s, _SPLIT), (n, c, *[1] * (x.ndim - 2))
    sums, maximum = (torch.empty(n, parts, c, device=x.device) for _ in range(2))
    grid = (n, triton.cdiv(c, tile["BC"]), parts)
    _launch(_pool_positions, grid, flat, sums, maximum, c, s, _SPLIT, *flat.stride(), **tile)
    return (sums.sum(1) / s).to(x.dtype).view(shape), maximum.amax(1).to(x.dtype).view(shape), no_places(x)


def pool_positions_backward_(
    x: Tensor, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
) -> None:
    flat, out, top = dense(x).flatten(2), dx.flatten(2), maximum.flatten(1).contiguous()
    n, c, s = flat.shape
    tile, parts = _sides(flat), triton.cdiv(s, _SPLIT)
    counts = torch.empty(n, parts, c, device=x.device)
    grid = (n, triton.cdiv(c, tile["BC"]), parts)
    _launch(_count_maxima, grid, flat, top, counts, c, s, _SPLIT, *flat.stride(), **tile)
    share = (d_maximum.flatten(1).float() / counts.sum(1)).contiguous()
    mean = (d_mean.flatten(1).float() / s).contiguous()
    grid = (n, triton.cdiv(c, tile["BC"]), triton.cdiv(s, tile["BS"]))
    _launch(_add_of_positions, grid, flat, top, mean, share, out, c, s, *flat.stride(), *out.stride(), **tile)


def pool_channels(x: Tensor, a: Tensor | None, finds: bool) -> tuple[Tensor, Tensor, Tensor]:
    flat = dense(x).flatten(2)
    n, c, s = flat.shape
    tile, shape = _sides(flat), (n, 1, *x.shape[2:])
    mean, maximum = x.new_empty(shape), x.new_empty(shape)
    gate = flat if a is None else a.contiguous()
    grid = (n, triton.cdiv(s, tile["BS"]))
    _launch(_pool_channels, grid, flat, gate, mean, maximum, c, s, *flat.stride(), HAS_A=a is not None, **tile)
    return mean, maximum, no_places(x)


def pool_channels_backward_(
    x: Tensor, a: Tensor | None, maximum: Tensor, which: Tensor, d_mean: Tensor, d_maximum: Tensor, dx: Tensor
) -> Tensor:
    flat, out = dense(x).flatten(2), dx.flatten(2)
    n, c, s = flat.shape
    tile = _sides(flat)
    grid = (n, triton.cdiv(s, tile["BS"]))
    gate = flat if a is None else a.contiguous()
    planes = (plane.contiguous() for plane in (d_mean, d_maximum))
    da = flat if a is None else torch.empty(n, grid[1], c, device=x.device)
    strides = (*flat.stride(), *out.stride())
    _launch(_add_of_channels, grid, flat, gate, *planes, out, da, c, s, *strides, HAS_A=a is not None, **tile)
    return x.new_empty(0) if a is None else da.sum(1).to(a.dtype)


def scale(x: Tensor, a: Tensor | None, b: Tensor | None) -> Tensor:
    x = dense(x)
    y = torch.empty_like(x)
    flat, out = x.flatten(2), y.flatten(2)
    n, c, s = flat.shape
    tile = _sides(flat)
    grid = (n, triton.cdiv(c, tile["BC"]), triton.cdiv(s, tile["BS"]))
    gates = (flat if gate is None else gate.contiguous() for gate in (a, b))
    flags = {"HAS_A": a is not None, "HAS_B": b is not None}
    _launch(_scale, grid, flat, *gates, out, c, s, *flat.stride(), *out.stride(), **flags, **tile)
    return y


def scale_backward(x: Tensor, a: Tensor | None, b: Tensor | None, grad: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    x, grad = dense(x), dense(grad)
    dx = torch.empty_like(x)
    flat, flat_grad, out = x.flatten(2), grad.flatten(2), dx.flatten(2)
    n, c, s = flat.shape
    tile = _sides(flat)
    grid = (n, triton.cdiv(s, tile["BS"]))
    da = flat if a is None else torch.empty(n, grid[1], c, device=x.device)
    db = flat if b is None else torch.empty(n, s, device=x.device)
    gates = (flat if gate is None else gate.contiguous() for gate in (a, b))
    strides = (*flat.stride(), *flat_grad.stride(), *out.stride())
    flags = {"HAS_A": a is not None, "HAS_B": b is not None}
    _launch(_scale_backward, grid, flat, flat_grad, *gates, out, da, db, c, s, *strides, **flags, **tile)
    none = x.new_empty(0)
    return dx, none if a is None else da.sum(1).to(a.dtype), none if b is None else db.to(b.dtype).view(b.shape)


def _sides(flat: Tensor) -> dict[str, int]:
    """Channels and positions of a tile."""
    return {"BC": 64, "BS": 32} if flat.stride(1) == 1 and flat.shape[1] > 1 else {"BC": 8, "BS": 256}


def _launch(kernel: Any, grid: tuple[int, ...], x: Tensor, *arguments: Any, **constants: Any) -> None:
    if not x.numel():
        return
    if x.device.type != "cuda":  # Triton's interpreter
        kernel[grid](x, *arguments, **constants)
        return
    with torch.cuda.device(x.device):
        kernel[grid](x, *arguments, **constants)
