import pytest
import torch

from cbam3d.attention.heads import RSTAN
from tests.attention.reference import check_against, linear, sigmoid, softmax


def step_of(cell, inputs, state, memory):
    """Hochreiter and Schmidhuber's, in PyTorch's order of gates."""
    gates = inputs @ cell.weight_ih.T + cell.bias_ih + state @ cell.weight_hh.T + cell.bias_hh
    i, f, g, o = gates.split(cell.hidden_size, 1)
    memory = sigmoid(f) * memory + sigmoid(i) * torch.tanh(g)
    return sigmoid(o) * torch.tanh(memory), memory


def run(head, x):
    state = memory = x.new_zeros(len(x), head.cell.hidden_size)
    states, maps = [], []
    for t in range(x.shape[2]):
        frames, inner = [], []
        for u in range(x.shape[2]):
            places = x[:, :, u].flatten(2)
            scores = []
            for s in range(places.shape[2]):
                hidden = torch.tanh(linear(head.of_positions, places[:, :, s]) + linear(head.by_state[0], state))
                scores.append(linear(head.score_positions, hidden)[:, 0])
            weights = softmax(torch.stack(scores, 1), 1)
            inner.append(weights)
            frames.append(sum(weights[:, s, None] * places[:, :, s] for s in range(places.shape[2])))
        scores = []
        for frame in frames:
            hidden = torch.tanh(linear(head.of_frames, frame) + linear(head.by_state[1], state))
            scores.append(linear(head.score_frames, hidden)[:, 0])
        weights = softmax(torch.stack(scores, 1), 1)
        context = sum(weights[:, u, None] * frame for u, frame in enumerate(frames))
        state, memory = step_of(head.cell, torch.cat([frames[t], context], 1), state, memory)
        states.append(state)
        maps.append(torch.stack([weights[:, u, None] * one for u, one in enumerate(inner)], 1))
    return sum(states) / len(states), sum(maps) / len(maps)


@pytest.mark.parametrize("shape", [(2, 5, 3, 2, 3), (2, 5, 1, 3, 1)])
def test_equals_the_formula(shape):
    check_against(lambda head, x: linear(head.classifier, run(head, x)[0]), RSTAN(5, 3, dim=4), shape)


def test_where_it_looks():
    torch.manual_seed(0)
    head, x = RSTAN(5, 3, dim=4), torch.randn(2, 5, 3, 2, 4)
    found = head.attention_map(x)
    assert found.shape == (2, 1, 3, 2, 4)
    torch.testing.assert_close(found.mean((1, 2, 3, 4)), torch.ones(2))
    torch.testing.assert_close(found[:, 0].flatten(2), run(head, x)[1] * 24)
    assert head.attention_map(x[:, :, 0]).shape == (2, 1, 2, 4)


def test_it_sees_the_order_of_frames_and_not_of_positions():
    torch.manual_seed(0)
    head, x = RSTAN(8, 3).eval(), torch.randn(2, 8, 6, 3, 3)
    assert not torch.allclose(head(x.flip(2)), head(x), atol=1e-4)
    torch.testing.assert_close(head(x.flip(3)), head(x))
