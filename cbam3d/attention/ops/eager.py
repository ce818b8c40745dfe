"""Detection of eager execution."""

import torch
from torch import Tensor, nn


def is_eager(x: Tensor) -> bool:
    """Whether x is an ordinary tensor outside of torch.compile, torch.export, tracing and functorch, where operations
    run as written, and PyTorch's own are not always the fastest."""
    if type(x) not in (Tensor, nn.Parameter) or not x.is_floating_point():
        return False
    traced = torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    return not traced and torch._C._functorch.peek_interpreter_stack() is None  # pyright: ignore
