import pytest
import torch

from cbam3d.attention import SimAM
from tests.attention.reference import SHAPES, check_against, mean, sigmoid, spread


def simam(block, x):
    centred = x - spread(mean(x), x)
    variance = (centred**2).flatten(2).sum(2) / (x[0, 0].numel() - 1)
    return x * sigmoid(centred**2 / (4 * (spread(variance, x) + 1e-4)) + 0.5)


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(simam, SimAM(shape[1]), shape)


def test_the_closed_form_is_the_least_energy():
    """The paper's energy of a neuron t, least over the linear functions w t + b that tell it from the others.

    The minimum is found by least squares; the paper then takes mean and variance over all neurons, t included.
    """
    torch.manual_seed(0)
    regularization = 1e-2
    x = torch.randn(4000, dtype=torch.float64)
    t, others = x[0], x[1:]
    n = len(others)
    # rows of (w, b): the others are to be -1, with weight 1/n together, t is to be 1, and λ w² is added
    rows = torch.cat([torch.stack([others, torch.ones(n)], 1) / n**0.5, torch.tensor([[t, 1.0]])])
    rows = torch.cat([rows, torch.tensor([[regularization**0.5, 0.0]])])
    wanted = torch.cat([torch.full((n,), -1.0) / n**0.5, torch.tensor([1.0, 0.0])]).double()
    solution = torch.linalg.lstsq(rows.double(), wanted[:, None]).solution[:, 0]
    least = (rows.double() @ solution - wanted).square().sum()
    importance = SimAM(1, regularization).logits(x.reshape(1, 1, 1, -1))[0, 0, 0, 0]
    torch.testing.assert_close(importance, 1 / least, rtol=2e-3, atol=0)


def test_one_position_is_no_division_by_zero():
    x = torch.randn(2, 4, 1, 1)
    torch.testing.assert_close(SimAM(4)(x), x * torch.sigmoid(torch.tensor(0.5)))


def test_no_overflow_in_half_precision():
    x = 100 * torch.randn(1, 4, 56, 56)
    torch.testing.assert_close(SimAM(4)(x.half()).float(), SimAM(4)(x), rtol=5e-3, atol=0.5)


def test_no_parameters():
    assert not list(SimAM(64).parameters())
