"""A head held against its formula."""

import torch
from torch import nn

from tests.attention.reference import randomised


def check_head(reference, head: nn.Module, shape: tuple[int, ...]) -> None:
    """Logits and all gradients, in float64, with every parameter and statistic at random."""
    torch.manual_seed(0)
    head = randomised(head).double().eval()
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True)
    out, expected = head(x), reference(head, x)
    torch.testing.assert_close(out, expected, rtol=1e-9, atol=1e-10)
    weights = torch.randn_like(out)
    leaves = [x, *head.parameters()]
    ours, theirs = (torch.autograd.grad((y * weights).sum(), leaves) for y in (out, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-8, atol=1e-9)
