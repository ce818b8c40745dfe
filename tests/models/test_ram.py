import math

import pytest
import torch
from torch.distributions import Normal
from torch.nn import functional as F

from cbam3d import create_model
from cbam3d.models.ram import RAM, Glimpses, log_normal
from tests.attention.reference import linear, randomised, relu


def test_glimpses_by_hand():
    net = RAM(3, in_channels=1, patch=2, num_scales=2)
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    found = net.glimpse(x, torch.zeros(1, 2))
    assert found[0, 0].tolist() == [[5, 6], [9, 10]]
    means = [[2.5, 4.5], [10.5, 12.5]]  # of 2x2
    torch.testing.assert_close(found[0, 1], torch.tensor(means))
    corner = net.glimpse(x, torch.tensor([[-0.5, 1.0]]))  # y in the upper half, x at the right edge
    assert corner[0, 0, :, 0].tolist() == [3, 7]
    clip = torch.arange(32.0).reshape(1, 1, 2, 4, 4)
    net = RAM(3, ndim=3, in_channels=1, patch=(1, 2, 2), num_scales=1)
    later = net.glimpse(clip, torch.tensor([[0.5, 0.0, 0.0]]))
    assert later[0, 0, 0].tolist() == [[21, 22], [25, 26]]


def ram(net, x):
    """In evaluation, as the paper has it."""
    state = x.new_zeros(len(x), net.cell.hidden_size)
    location = x.new_zeros(len(x), net.ndim)
    for step in range(net.num_glimpses):
        if step:
            location = torch.tanh(linear(net.locate, state))
        what = relu(linear(net.what, net.glimpse(x, location).flatten(1)))
        where = relu(linear(net.where, location))
        g = relu(linear(net.join[0], what) + linear(net.join[1], where))
        cell = net.cell
        state = relu(g @ cell.weight_ih.T + cell.bias_ih + state @ cell.weight_hh.T + cell.bias_hh)
    return linear(net.fc, state)


@pytest.mark.parametrize("sides", [(9, 8), (4, 6, 6)])
def test_evaluation_follows_the_formula(sides):
    torch.manual_seed(0)
    net = randomised(RAM(4, len(sides), 2, patch=3, num_scales=2, num_glimpses=3, dim=8)).double().eval()
    for parameter in net.parameters():
        parameter.data *= 0.5
    x = torch.randn(2, 2, *sides, dtype=torch.float64)
    torch.testing.assert_close(net(x), ram(net, x), rtol=1e-5, atol=1e-6)  # locations are float32
    assert torch.equal(net(x), net(x))


def test_the_loss_by_hand():
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], requires_grad=True)
    chances = torch.tensor([[-1.0, -2.0], [-3.0, -4.0]], requires_grad=True)
    baselines = torch.tensor([[0.25, 0.5], [0.5, 0.0]], requires_grad=True)
    outputs = Glimpses(logits, chances, baselines)
    loss = outputs.loss(torch.tensor([0, 0]))  # the first is right, the second is wrong
    guess = math.log(1 + math.exp(-2)) + math.log(1 + math.e)
    errors = [0.75, 0.5, -0.5, 0.0]
    policy = 0.75 * 1 + 0.5 * 2 - 0.5 * 3
    torch.testing.assert_close(loss, torch.tensor(guess + policy + sum(e**2 for e in errors)))
    loss.backward()
    torch.testing.assert_close(chances.grad, torch.tensor([[-0.75, -0.5], [0.5, 0.0]]))
    torch.testing.assert_close(baselines.grad, torch.tensor([[-1.5, -1.0], [1.0, 0.0]]))
    soft = outputs.loss(torch.tensor([[0.9, 0.1], [0.6, 0.4]]))
    expected = F.cross_entropy(logits, torch.tensor([[0.9, 0.1], [0.6, 0.4]]), reduction="sum")
    torch.testing.assert_close(soft - loss, expected - guess)


def test_the_density_is_the_normal_one():
    x, mean = torch.randn(5), torch.randn(5)
    torch.testing.assert_close(log_normal(x, mean, 0.3), Normal(mean, 0.3).log_prob(x))


def test_training_draws_locations_and_every_parameter_learns():
    net = create_model("ram", 3, patch=4, dim=16)
    x = torch.randn(4, 3, 12, 12)
    torch.manual_seed(0)
    first = net(x)
    torch.manual_seed(1)
    second = net(x)
    assert isinstance(first, Glimpses)
    assert first.log_probabilities.shape == first.baselines.shape == (4, 5)
    assert not torch.equal(first.logits, second.logits)
    first.loss(torch.tensor([0, 1, 2, 0])).backward()
    assert all(p.grad is not None and p.grad.abs().max() > 0 for p in net.parameters())


def test_reinforce_finds_the_bright_side():
    """One glimpse to choose: the class is visible on one side only."""
    torch.manual_seed(0)
    net = RAM(2, in_channels=1, patch=4, num_scales=1, num_glimpses=2, dim=32, std=0.3)
    labels = torch.arange(256) % 2
    x = torch.zeros(256, 1, 8, 24)
    x[:, 0, :, 16:] = labels[:, None, None] * 2.0 - 1
    optimizer = torch.optim.Adam(net.parameters(), 0.005)
    for _ in range(150):
        loss = net(x).loss(labels) / len(x)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    assert (net(x).argmax(1) == labels).float().mean() == 1


def test_random_locations_do_not_learn():
    net = RAM(3, patch=4, dim=16, policy="random")
    net(torch.randn(4, 3, 12, 12)).loss(torch.tensor([0, 1, 2, 0])).backward()
    assert net.locate.weight.grad.abs().max() == 0


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='policy must be "learned" or "random"'):
        RAM(3, policy="best")
    with pytest.raises(ValueError, match="std must be above 0"):
        RAM(3, std=0)
    with pytest.raises(ValueError, match="num_glimpses must be at least 2"):
        RAM(3, num_glimpses=1)
    for options in ({"head": "mean"}, {"as_video": "frames"}):
        with pytest.raises(ValueError, match="ram has neither another head nor as_video"):
            create_model("ram", 3, ndim=3, **options)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision(ndim, dtype):
    torch.manual_seed(0)
    net, x = RAM(3, ndim, patch=4, dim=16).eval(), torch.randn(2, 3, *(4, 9, 7)[-ndim:])
    expected = net(x)
    torch.testing.assert_close(net.to(dtype)(x.to(dtype)).float(), expected, rtol=0.05, atol=0.05)


def test_scales_of_odd_sides_have_one_centre():
    """A ramp has the same value at the middle of every scale."""
    for sides in ((33, 31), (37, 50)):
        rows, columns = (torch.arange(float(side)) for side in sides)
        x = (rows[:, None] + 100 * columns)[None, None]
        net = RAM(3, in_channels=1, patch=3, num_scales=3)
        found = net.glimpse(x, torch.zeros(1, 2))[0, :, 1, 1]
        torch.testing.assert_close(found, torch.full((3,), (sides[0] - 1) / 2 + 100 * (sides[1] - 1) / 2))
