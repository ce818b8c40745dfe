import pytest
import torch

from cbam3d import create_model
from cbam3d.models.draw import DRAW
from tests.attention.heads.test_rstan import step_of
from tests.attention.reference import linear, randomised
from tests.attention.test_filterbank import by_definition


def draw(net, x):
    """Sample by sample, filter by filter, from the formula."""
    state = memory = x.new_zeros(len(x), net.cell.hidden_size)
    for _ in range(net.num_glimpses):
        asked = linear(net.look, state)
        rows = []
        for n in range(len(x)):
            *centres, variance, stride, gain = asked[n : n + 1].unbind(1)
            patch = x[n]
            for axis, (centre, count) in enumerate(zip(centres, net.patch, strict=True), start=1):
                side = x.shape[1 + axis]
                step = stride.exp() * (side - 1) / (count - 1)
                bank = by_definition((centre + 1) / 2 * (side - 1), step, variance.exp(), count, side)[0]
                patch = torch.tensordot(bank, patch, dims=([1], [axis])).movedim(0, axis)
            rows.append((patch * gain.exp()).flatten())
        state, memory = step_of(net.cell, torch.stack(rows), state, memory)
    return linear(net.fc, state)


@pytest.mark.parametrize(("sides", "patch"), [((7, 6), 3), ((4, 6, 5), (2, 3, 3))])
def test_equals_the_formula(sides, patch):
    torch.manual_seed(0)
    net = randomised(DRAW(5, len(sides), 2, patch, num_glimpses=3, dim=8)).double()
    torch.nn.init.normal_(net.look.weight, std=0.1)
    x = torch.randn(2, 2, *sides, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(net(x), draw(net, x))


def test_the_first_look_is_at_everything():
    """State 0 and biases 0: centre, the whole width, variance 1."""
    net = DRAW(5, patch=5)
    torch.nn.init.zeros_(net.look.bias)
    (rows, _), gain = net.filters(torch.zeros(1, 256), torch.Size((9, 9)))
    assert rows[0].argmax(1).tolist() == [0, 2, 4, 6, 8]
    assert gain.tolist() == [1]


def test_every_parameter_gets_a_gradient():
    net = create_model("draw", 3, attention="none", patch=4, dim=16)
    net(torch.randn(2, 3, 12, 12)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_a_network_without_blocks_has_no_place_for_attention():
    with pytest.raises(ValueError, match="draw has no place for attention 'se'"):
        create_model("draw", 3, attention="se")
    assert create_model("draw", 3, ndim=3, patch=4)(torch.zeros(1, 3, 4, 8, 8)).shape == (1, 3)
