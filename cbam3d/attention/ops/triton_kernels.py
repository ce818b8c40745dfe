"""GPU kernels of the fused gates: the functions of kernels.py, in Triton.

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

_SPLIT = 4096  # positions of a channel per program


@triton.jit
def _tile(n, c, s, stride_n, stride_c, stride_s):
    return n * stride_n + c.to(tl.int64)[:, None] * stride_c + s.to(tl.int64)[None, :] * stride_s


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
def _pool_channels(
    x, a, mean, maximum, which, C, S, xn, xc, xs, HAS_A: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr
):
    n = tl.program_id(0).to(tl.int64)
    s = tl.program_id(1) * BS + tl.arange(0, BS)
    total = tl.zeros([BS], tl.float32)
    top = tl.full([BS], float("-inf"), tl.float32)
    at = tl.zeros([BS], tl.int32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None] & (s < S)[None, :]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        if HAS_A:
            values *= tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
        total += tl.sum(values, 0)
        best, place = tl.max(tl.where(inside, values, float("-inf")), 0, return_indices=True)
        at = tl.where(best > top, start + place, at)
        top = tl.maximum(top, best)
    tl.store(mean + n * S + s, total / C, mask=s < S)
    tl.store(maximum + n * S + s, top, mask=s < S)
    tl.store(which + n * S + s, at.to(tl.int64), mask=s < S)


@triton.jit
def _products(
    x, g, a, b, da, db, C, S, xn, xc, xs, gn, gc, gs,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    n, part = tl.program_id(0).to(tl.int64), tl.program_id(1)
    s = part * BS + tl.arange(0, BS)
    total = tl.zeros([BS], tl.float32)
    weights = tl.load(b + n * S + s, mask=s < S, other=0.0).to(tl.float32) if HAS_B else tl.full([BS], 1.0, tl.float32)
    for start in range(0, C, BC):
        c = start + tl.arange(0, BC)
        inside = (c < C)[:, None] & (s < S)[None, :]
        values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
        values *= tl.load(g + _tile(n, c, s, gn, gc, gs), mask=inside, other=0.0).to(tl.float32)
        if HAS_A:
            of_channels = tl.sum(values * weights[None, :], 1)
            tl.store(da + (n * tl.num_programs(1) + part) * C + c, of_channels, mask=c < C)
            total += tl.sum(values * tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None], 0)
        else:
            total += tl.sum(values, 0)
    if HAS_B:
        tl.store(db + n * S + s, total, mask=s < S)


@triton.jit
def _combine(
    x, a, b, per_channel, per_plane, out, C, S, xn, xc, xs, on, oc, os,
    HAS_A: tl.constexpr, HAS_B: tl.constexpr, ADDS: tl.constexpr, BC: tl.constexpr, BS: tl.constexpr,
):  # fmt: skip
    n = tl.program_id(0).to(tl.int64)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    s = tl.program_id(2) * BS + tl.arange(0, BS)
    inside = (c < C)[:, None] & (s < S)[None, :]
    values = tl.load(x + _tile(n, c, s, xn, xc, xs), mask=inside, other=0.0).to(tl.float32)
    if HAS_B:
        values *= tl.load(b + n * S + s, mask=s < S, other=0.0).to(tl.float32)[None, :]
        if ADDS:
            values += tl.load(per_plane + n * S + s, mask=s < S, other=0.0).to(tl.float32)[None, :]
    if HAS_A:
        values *= tl.load(a + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
        if ADDS:
            values += tl.load(per_channel + n * C + c, mask=c < C, other=0.0).to(tl.float32)[:, None]
    tl.store(out + _tile(n, c, s, on, oc, os), values, mask=inside)


def pool_positions(flat: Tensor, with_max: bool) -> tuple[Tensor, Tensor]:
    """Mean and maximum over positions, (N, C) each; without `with_max` the second is the mean."""
    n, c, s = flat.shape
    tile = _sides(flat)
    parts = triton.cdiv(s, _SPLIT)
    sums, maximum = (torch.empty(n, parts, c, device=flat.device) for _ in range(2))
    grid = (n, triton.cdiv(c, tile["BC"]), parts)
    _launch(_pool_positions, grid, flat, sums, maximum, c, s, _SPLIT, *flat.stride(), **tile)
    mean = (sums.sum(1) / s).to(flat.dtype)
    return mean, maximum.amax(1).to(flat.dtype) if with_max else mean


def pool_channels(flat: Tensor, a: Tensor | None, wants_positions: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """Mean and maximum of a·x over channels, (N, S) each, and the index of the maximum."""
    n, c, s = flat.shape
    tile = _sides(flat)
    mean, maximum = flat.new_empty(n, s), flat.new_empty(n, s)
    which = torch.empty(n, s, dtype=torch.int64, device=flat.device)
    grid, gate = (n, triton.cdiv(s, tile["BS"])), a if a is None else a.contiguous()
    outputs = (mean, maximum, which, c, s, *flat.stride())
    _launch(_pool_channels, grid, flat, flat if gate is None else gate, *outputs, HAS_A=gate is not None, **tile)
    return mean, maximum, which if wants_positions else None


def positions_of(flat: Tensor, maximum: Tensor) -> Tensor:
    """Index of each channel's maximum, (N, C); the first of several."""
    return flat.argmax(2)


def weigh_positions(flat: Tensor, weights: Tensor) -> Tensor:
    """Σ_s of features (N, C, S) times weights (N, S): (N, C)."""
    return torch.bmm(flat, weights[:, :, None])[:, :, 0]


def multiply(flat: Tensor, a: Tensor | None, b: Tensor | None, out: Tensor) -> None:
    """Write x·a·b to `out`; either gate may be None."""
    _combined(flat, a, b, None, None, out)


def products(flat: Tensor, grad: Tensor, a: Tensor | None, b: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """The gradients of a, Σ_s grad·x·b, and of b, Σ_c grad·x·a."""
    n, c, s = flat.shape
    tile = _sides(flat)
    grid = (n, triton.cdiv(s, tile["BS"]))
    da = torch.empty(n, grid[1], c, device=flat.device) if a is not None else flat
    db = torch.empty(n, s, device=flat.device) if b is not None else flat
    gates = (flat if gate is None else gate.contiguous() for gate in (a, b))
    flags = {"HAS_A": a is not None, "HAS_B": b is not None}
    _launch(_products, grid, flat, grad, *gates, da, db, c, s, *flat.stride(), *grad.stride(), **flags, **tile)
    return None if a is None else da.sum(1), None if b is None else db.to(flat.dtype)


def combine(
    grad: Tensor,
    a: Tensor | None,
    b: Tensor | None,
    per_channel: Tensor | None,
    per_plane: Tensor | None,
    out: Tensor,
) -> None:
    """Write a·(grad·b + per_plane) + per_channel to `out`, without the terms of a missing gate."""
    _combined(grad, a, b, per_channel, per_plane, out)


def _combined(
    x: Tensor, a: Tensor | None, b: Tensor | None, per_channel: Tensor | None, per_plane: Tensor | None, out: Tensor
) -> None:
    n, c, s = x.shape
    tile = _sides(out)
    grid = (n, triton.cdiv(c, tile["BC"]), triton.cdiv(s, tile["BS"]))
    others = (x if one is None else one.contiguous() for one in (a, b, per_channel, per_plane))
    adds = per_channel is not None or per_plane is not None
    flags = {"HAS_A": a is not None, "HAS_B": b is not None, "ADDS": adds}
    _launch(_combine, grid, x, *others, out, c, s, *x.stride(), *out.stride(), **flags, **tile)


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
