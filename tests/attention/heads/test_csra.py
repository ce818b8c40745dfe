import pytest
import torch

from cbam3d.attention import CSRA
from tests.attention.reference import positions


@pytest.mark.parametrize("shape", [(2, 5, 3, 4), (2, 5, 2, 3, 4)])
@pytest.mark.parametrize("temperature", [None, 2.0])
def test_equals_the_formula(shape, temperature):
    head = CSRA(5, 3, weight=0.4, temperature=temperature).double()
    x = torch.randn(shape, dtype=torch.float64)
    for n in range(2):
        for k in range(3):
            y = torch.stack([(head.classifier.weight[k] * x[(n, slice(None), *p)]).sum() for p in positions(x)])
            strongest = max(y) if temperature is None else (y * torch.softmax(2.0 * y, 0)).sum()
            torch.testing.assert_close(head(x)[n, k], sum(y) / len(y) + 0.4 * strongest)


def test_without_attention_it_is_the_usual_head():
    head = CSRA(5, 3, weight=0.0)
    x = torch.randn(2, 5, 4, 6, 6)
    torch.testing.assert_close(head(x), head.classifier(x.mean((2, 3, 4))))


def test_a_high_temperature_is_the_maximum():
    hot, limit = CSRA(5, 3, temperature=1e4), CSRA(5, 3)
    limit.load_state_dict(hot.state_dict())
    x = torch.randn(2, 5, 4, 4)
    torch.testing.assert_close(hot(x), limit(x))


def test_every_parameter_learns():
    head = CSRA(5, 3)
    head(torch.randn(2, 5, 4, 4)).sum().backward()
    assert head.classifier.weight.grad is not None
