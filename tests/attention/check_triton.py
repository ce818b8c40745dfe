"""Run by test_triton_kernels.py in a process of its own, where Triton interprets its kernels on the CPU."""

import itertools

import torch

from cbam3d.attention.ops import reference, triton_kernels

SHAPES = [(2, 5, 2, 5, 7), (1, 70, 3, 4, 3), (3, 1, 1, 1, 1), (1, 3, 5, 30, 31)]  # less and more than a tile each way
LIMIT = {torch.float32: 1e-5, torch.bfloat16: 3e-2, torch.float16: 5e-3}


def near(found, expected, dtype, terms):
    """To the precision of the terms of a sum."""
    assert found.dtype == dtype
    assert found.shape == expected.shape
    assert ((found.float() - expected.float()).abs() <= LIMIT[dtype] * max(1.0, terms)).all()


def check(shape, dtype, layout, has_a, has_b):
    x, grad, dx = (torch.randn(shape).to(dtype).to(memory_format=layout) for _ in range(3))
    x[0, 0, 0, 0, -1] = x.max()  # tied maxima
    plane = (shape[0], 1, *shape[2:])
    a = torch.rand(shape[:2]).to(dtype) if has_a else None
    b = torch.rand(plane).to(dtype) if has_b else None
    for found, expected in zip(triton_kernels.pool_positions(x, True)[:2], reference.pool_positions(x), strict=True):
        near(found, expected, dtype, 1)
    highest = reference.pool_positions(x)[1]
    grads = [torch.randn(*shape[:2], 1, 1, 1).to(dtype) for _ in range(2)]
    none = torch.empty(0, dtype=torch.int64)
    added = dx.clone(memory_format=torch.preserve_format)
    triton_kernels.pool_positions_backward_(x, highest, none, *grads, added)
    near(added, dx + reference.pool_positions_backward(x, highest, *grads), dtype, 4)
    exact, of_channels = x.float(), None if a is None else a.float()  # rounding may move a maximum
    pooled = reference.pool_channels(exact, of_channels)
    for found, expected in zip(triton_kernels.pool_channels(x, a, True)[:2], pooled, strict=True):
        near(found, expected, dtype, 1)
    grads = [torch.randn(plane).to(dtype) for _ in range(2)]
    added = dx.clone(memory_format=torch.preserve_format)
    da = triton_kernels.pool_channels_backward_(x, a, pooled[1].to(dtype), none, *grads, added)
    more, of_a = reference.pool_channels_backward(exact, of_channels, pooled[1], *(grad.float() for grad in grads))
    near(added, dx + more, dtype, 4)
    near(da, of_a, dtype, dx[0, 0].numel() ** 0.5 * 4)
    near(triton_kernels.scale(x, a, b), reference.scale(x, a, b), dtype, 4)
    pairs = zip(triton_kernels.scale_backward(x, a, b, grad), reference.scale_backward(x, a, b, grad), strict=True)
    for found, expected in pairs:
        near(found, expected, dtype, (x.float() * grad.float()).abs().flatten(1).sum(1).max().item() ** 0.5)


def main():
    torch.manual_seed(0)
    layouts = (torch.contiguous_format, torch.channels_last_3d)
    gates = ((True, True), (True, False), (False, True))
    for layout, (has_a, has_b) in itertools.product(layouts, gates):
        check(SHAPES[0], torch.float32, layout, has_a, has_b)
        for shape in SHAPES[1:] if has_a and has_b else []:
            check(shape, torch.float32, layout, has_a, has_b)
    for dtype in (torch.bfloat16, torch.float16):
        check(SHAPES[0], dtype, torch.contiguous_format, True, True)
    print("equal")


if __name__ == "__main__":
    main()
