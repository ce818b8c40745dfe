"""Run by test_triton_kernels.py in a process of its own, where Triton interprets its kernels on the CPU."""

import itertools

import torch

from cbam3d import CBAM3d, create_attention
from cbam3d.attention.ops import fused, kernels, triton_kernels

SHAPES = [(2, 5, 2, 5, 7), (1, 70, 3, 4, 3), (3, 1, 1, 1, 1), (1, 3, 5, 30, 31)]  # less and more than a tile each way
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 4e-3}


def near(found, expected, dtype):
    if expected is None:
        assert found is None
        return
    assert found.dtype == expected.dtype
    assert found.shape == expected.shape
    scale = max(1.0, expected.float().abs().max().item())
    assert (found.float() - expected.float()).abs().max() <= LIMIT[dtype] * scale


def check_kernels(shape, dtype, layout, has_a, has_b):
    x, grad = (torch.randn(shape).to(dtype).to(memory_format=layout) for _ in range(2))
    flat, flat_grad = x.flatten(2), grad.flatten(2)
    n, c, s = flat.shape
    a = torch.rand(n, c).to(dtype) if has_a else None
    b = torch.rand(n, s).to(dtype) if has_b else None
    for with_max in (True, False):
        pairs = zip(triton_kernels.pool_positions(flat, with_max), kernels.pool_positions(flat, with_max), strict=True)
        for found, expected in pairs:
            near(found, expected, dtype)
    mean, maximum, which = triton_kernels.pool_channels(flat, a, True)
    expected = kernels.pool_channels(flat, a, True)
    near(mean, expected[0], dtype)
    near(maximum, expected[1], dtype)
    gated = (flat if a is None else flat * a[:, :, None]).float()
    near(gated.gather(1, which[:, None])[:, 0], gated.amax(1), dtype)  # rounding may make neighbours equal
    assert dtype != torch.float32 or torch.equal(which, expected[2])
    for found, right in zip(
        triton_kernels.products(flat, flat_grad, a, b), kernels.products(flat, flat_grad, a, b), strict=True
    ):
        assert (found is None) == (right is None)
        if right is not None:  # sums of products: to the precision of their terms
            terms = (flat.float() * flat_grad.float()).abs().sum(1 if right.shape[1] == s and s != c else 2).max()
            assert (found.float() - right.float()).abs().max() <= LIMIT[dtype] * max(1.0, terms.item())
    per_channel = torch.randn(n, c).to(dtype) if has_a else None
    per_plane = torch.randn(n, s).to(dtype) if has_b else None
    outs = []
    for way in (triton_kernels, kernels):
        product, combined = torch.empty_like(x), torch.empty_like(x)
        way.multiply(flat, a, b, product.flatten(2))
        way.combine(flat_grad, a, b, per_channel, per_plane, combined.flatten(2))
        outs.append((product, combined))
    for found, right in zip(*outs, strict=True):
        near(found, right, dtype)


def check_blocks():
    """The whole forward and backward pass."""
    fused._LEAST = 0
    for build in (
        lambda: CBAM3d(6, reduction=2),
        lambda: CBAM3d(6, gates=("spatial",)),
        lambda: create_attention("se", 6),
    ):
        torch.manual_seed(0)
        block, x = build(), torch.randn(2, 6, 3, 5, 4)
        results = []
        for way in (kernels, triton_kernels):
            fused._kernels_for = lambda _, way=way: way
            inputs = x.clone().requires_grad_()
            block.zero_grad()
            out = block(inputs)
            assert "_Gated" in type(out.grad_fn).__name__
            out.square().sum().backward()
            results.append([out.detach(), inputs.grad, *(p.grad for p in block.parameters())])
        for found, expected in zip(*results, strict=True):
            near(found, expected, torch.float32)


def main():
    torch.manual_seed(0)
    layouts = (torch.contiguous_format, torch.channels_last_3d)
    gates = ((True, True), (True, False), (False, True))
    for layout, (has_a, has_b) in itertools.product(layouts, gates):
        check_kernels(SHAPES[0], torch.float32, layout, has_a, has_b)
        for shape in SHAPES[1:] if has_a and has_b else []:
            check_kernels(shape, torch.float32, layout, has_a, has_b)
    for dtype in (torch.bfloat16, torch.float16):
        check_kernels(SHAPES[0], dtype, torch.contiguous_format, True, True)
    check_blocks()
    print("equal")


if __name__ == "__main__":
    main()
