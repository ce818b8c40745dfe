import pytest
import torch

from cbam3d.attention import ECA
from tests.attention.reference import SHAPES, check_against, mean, sigmoid, spread


def eca(block, x):
    pooled, kernel = mean(x), block.conv.weight[0, 0]
    reach = len(kernel) // 2
    logits = torch.zeros_like(pooled)
    for c in range(x.shape[1]):
        for k, weight in enumerate(kernel):
            if 0 <= c + k - reach < x.shape[1]:
                logits = logits + torch.nn.functional.one_hot(torch.tensor(c), x.shape[1]) * (
                    weight * pooled[:, c + k - reach, None]
                )
    return x * spread(sigmoid(logits), x)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kernel_size", [None, 5])
def test_equals_the_formula(shape, kernel_size):
    check_against(eca, ECA(shape[1], kernel_size), shape)


@pytest.mark.parametrize(
    ("channels", "kernel_size"), [(1, 1), (8, 3), (64, 3), (128, 5), (256, 5), (512, 5), (2048, 7)]
)
def test_the_papers_kernel_sizes(channels, kernel_size):
    """By hand: |log2(C)/2 + 1/2|, to the next odd number where it is even."""
    assert ECA(channels).conv.weight.shape[-1] == kernel_size
