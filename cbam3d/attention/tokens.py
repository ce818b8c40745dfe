"""Attention between positions, shared by several mechanisms."""

import torch
from torch import Tensor
from torch.nn import functional as F


def as_tokens(x: Tensor) -> Tensor:
    """(N, C, *S) -> (N, |S|, C)."""
    return x.flatten(2).transpose(1, 2)


def as_features(tokens: Tensor, size: torch.Size) -> Tensor:
    """(N, |S|, C) -> (N, C, *S)."""
    return tokens.transpose(1, 2).reshape(tokens.shape[0], tokens.shape[2], *size)


def attend(query: Tensor, key: Tensor, value: Tensor, scale: float) -> Tensor:
    """softmax(scale · query keyᵀ) value: (N, A, D), (N, B, D), (N, B, C) -> (N, A, C).

    PyTorch's fused kernels avoid materialising the A×B weights where possible.
    """
    return F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None], scale=scale)[:, 0]
