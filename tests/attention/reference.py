"""Pieces of the papers' formulas written out with loops and einsum, in float64: what the blocks are held against."""

import itertools
import math

import torch
from torch import Tensor, nn

SHAPES = [(2, 6, 5, 4), (2, 6, 3, 4, 3)]  # images, clips


def check_against(reference, block: nn.Module, shape: tuple[int, ...]) -> None:
    """Values and all gradients of a block or head, in evaluation mode, every parameter and statistic at random."""
    torch.manual_seed(0)
    block = randomised(block).double().eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    leaves = [x, *(p for p in block.parameters() if p.requires_grad)]
    out, expected = block(x), reference(block, x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn_like(out)
    ours = torch.autograd.grad((out * weights).sum(), leaves)
    theirs = torch.autograd.grad((expected * weights).sum(), leaves)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)


def randomised(block: nn.Module) -> nn.Module:
    """The block with parameters that are not at their start, where many of them are 0."""
    with torch.no_grad():
        for parameter in block.parameters():
            parameter.copy_(torch.randn_like(parameter) * 0.5)
        for module in block.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.5, 0.5)  # type: ignore[union-attr]
                module.running_var.uniform_(0.5, 1.5)  # type: ignore[union-attr]
    return block


def sigmoid(x: Tensor) -> Tensor:
    return 1 / (1 + torch.exp(-x))


def relu(x: Tensor) -> Tensor:
    return torch.where(x > 0, x, torch.zeros_like(x))


def softmax(x: Tensor, axis: int) -> Tensor:
    powers = torch.exp(x)
    return powers / powers.sum(axis, keepdim=True)


def linear(layer, x: Tensor) -> Tensor:
    """(N, in) -> (N, out)."""
    out = torch.einsum("oi,ni->no", layer.weight.reshape(layer.weight.shape[:2]), x)
    return out if layer.bias is None else out + layer.bias


def pointwise(layer, x: Tensor) -> Tensor:
    """A convolution with kernel 1, (N, in, *S) -> (N, out, *S)."""
    out = torch.einsum("oi,ni...->no...", layer.weight.reshape(layer.weight.shape[:2]), x)
    return out if layer.bias is None else out + along(layer.bias, x)


def along(values: Tensor, x: Tensor) -> Tensor:
    """(C,) -> (C, 1, …), to go with (N, C, *S)."""
    return values.reshape(-1, *(1,) * (x.ndim - 2))


def spread(values: Tensor, x: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, …)."""
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))


def norm(layer, x: Tensor) -> Tensor:
    """BatchNorm with its running statistics, channels on axis 1."""
    scaled = (x - along(layer.running_mean, x)) / torch.sqrt(along(layer.running_var, x) + layer.eps)
    return along(layer.weight, x) * scaled + along(layer.bias, x)


def conv(layer, x: Tensor) -> Tensor:
    """Any convolution with zero padding, from its definition: a sum over the places of the kernel."""
    size = x.shape[2:]
    kernel, stride, padding, dilation = (layer.weight.shape[2:], layer.stride, layer.padding, layer.dilation)
    rank = len(size)
    out_size = [(size[a] + 2 * padding[a] - dilation[a] * (kernel[a] - 1) - 1) // stride[a] + 1 for a in range(rank)]
    padded = x.new_zeros(*x.shape[:2], *(size[a] + 2 * padding[a] for a in range(rank)))
    padded[(..., *(slice(padding[a], padding[a] + size[a]) for a in range(rank)))] = x
    groups = layer.groups
    weight = layer.weight.reshape(groups, -1, *layer.weight.shape[1:])
    out = torch.zeros(())
    for offset in itertools.product(*(range(k) for k in kernel)):
        window = tuple(
            slice(offset[a] * dilation[a], offset[a] * dilation[a] + (out_size[a] - 1) * stride[a] + 1, stride[a])
            for a in range(rank)
        )
        part = padded[(..., *window)]
        part = part.reshape(len(x), groups, -1, *out_size)
        out = out + torch.einsum("goi,ngi...->ngo...", weight[(..., *offset)], part)
    out = out.reshape(len(x), -1, *out_size)
    return out if layer.bias is None else out + along(layer.bias, out)


def mean(x: Tensor) -> Tensor:
    """Over the positions, (N, C, *S) -> (N, C)."""
    return x.flatten(2).sum(2) / math.prod(x.shape[2:])


def positions(x: Tensor) -> list[tuple[int, ...]]:
    """Of (N, C, *S), all indices into S."""
    return list(itertools.product(*(range(side) for side in x.shape[2:])))


def at(x: Tensor, position: tuple[int, ...]) -> Tensor:
    """(N, C): the features at one position."""
    return x[(slice(None), slice(None), *position)]


def from_positions(values: dict[tuple[int, ...], Tensor], like: Tensor) -> Tensor:
    """(N, C) at each position -> (N, C, *S)."""
    stacked = torch.stack([values[position] for position in positions(like)], -1)
    return stacked.reshape(*stacked.shape[:2], *like.shape[2:])
