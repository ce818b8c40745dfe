import pytest
import torch

from cbam3d.attention import SK
from tests.attention.reference import SHAPES, check_against, conv, linear, mean, norm, relu, softmax, spread


def sk(block, x):
    features = [relu(norm(branch[1], conv(branch[0], x))) for branch in block.branches]
    z = relu(norm(block.reduce[1], linear(block.reduce[0], mean(sum(features)))))
    scores = linear(block.select, z).reshape(len(x), len(features), x.shape[1])
    weights = softmax(scores, 1)
    return sum(spread(weights[:, i], x) * feature for i, feature in enumerate(features))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{"groups": 2}, {"num_branches": 3, "groups": 1}])
def test_equals_the_formula(shape, options):
    check_against(sk, SK(shape[1], min_hidden=3, ndim=len(shape) - 2, **options), shape)


def test_the_second_branch_sees_five_by_five():
    block = SK(1, groups=1, ndim=2).eval()
    x = torch.zeros(1, 1, 9, 9, requires_grad=True)
    for branch, reach in zip(block.branches, (1, 2), strict=True):
        torch.nn.init.ones_(branch[0].weight)
        branch[0](x)[0, 0, 4, 4].backward()
        seen = x.grad[0, 0].nonzero()
        assert (seen.min().item(), seen.max().item()) == (4 - reach, 4 + reach)
        x.grad = None


def test_weights_of_the_branches_add_up_to_one():
    weights = SK(8, num_branches=3).eval().attention_map(torch.randn(2, 8, 3, 5, 5))
    assert weights.shape == (2, 3, 8)
    torch.testing.assert_close(weights.sum(1), torch.ones(2, 8))


def test_groups_divide_the_channels():
    assert SK(48).branches[0][0].groups == 24  # the largest divisor of 48 up to the paper's 32
    assert SK(64).branches[0][0].groups == 32


def test_one_branch_is_no_choice():
    with pytest.raises(ValueError, match="num_branches must be at least 2, got 1"):
        SK(8, num_branches=1)
