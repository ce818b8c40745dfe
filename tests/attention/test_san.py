import itertools

import pytest
import torch

from cbam3d.attention import SAN
from tests.attention.reference import (
    SHAPES,
    at,
    check_against,
    from_positions,
    norm,
    pointwise,
    positions,
    relu,
    softmax,
)

FORMS = [
    ("pairwise", "subtraction"),
    ("pairwise", "summation"),
    ("pairwise", "product"),
    ("pairwise", "concatenation"),
    ("patchwise", "concatenation"),
    ("patchwise", "product"),
]


def mapped(block, values):
    """γ of one position, (N, inputs)."""
    first, _, linear, second, _, last = block.gamma
    hidden = pointwise(linear, relu(norm(first, values[:, :, None])))
    return pointwise(last, relu(norm(second, hidden)))[:, :, 0]


def san(block, x):
    """Position by position."""
    phi, psi, beta = (pointwise(layer, x) for layer in (block.phi, block.psi, block.beta))
    reach = [size // 2 for size in block.window]
    offsets = list(itertools.product(*(range(-r, r + 1) for r in reach)))
    sides = x.shape[2:]

    def place(i):
        line = torch.tensor([2 * a / (n - 1) - 1 if n > 1 else 0 for a, n in zip(i, sides, strict=True)], dtype=x.dtype)
        return block.place.weight.flatten(1) @ line

    groups = block.groups
    out = {}
    for i in positions(x):
        around = [tuple(a + b for a, b in zip(i, offset, strict=True)) for offset in offsets]
        exists = [all(0 <= a < n for a, n in zip(j, sides, strict=True)) for j in around]
        if block.form == "pairwise":
            around = [j for j, there in zip(around, exists, strict=True) if there]
            scores = []
            for j in around:
                a, b = at(phi, i), at(psi, j)
                relation = {"subtraction": a - b, "summation": a + b, "product": a * b}.get(
                    block.relation, torch.cat([a, b], 1)
                )
                away = (place(i) - place(j)).expand(len(x), -1)
                scores.append(mapped(block, torch.cat([relation, away], 1)))
            weights = softmax(torch.stack(scores, 2), 2)  # (N, groups, window)
        else:
            patch = [at(psi, j) if there else 0 * at(psi, i) for j, there in zip(around, exists, strict=True)]
            if block.relation == "product":
                inputs = torch.stack([(at(phi, i) * one).sum(1) for one in patch], 1)
            else:  # channel by channel, and of each the window
                inputs = torch.cat([at(phi, i), torch.stack(patch, 2).flatten(1)], 1)
            weights = mapped(block, inputs).reshape(len(x), groups, -1)
            weights = weights[:, :, torch.tensor(exists)]
            around = [j for j, there in zip(around, exists, strict=True) if there]
        values = torch.stack([at(beta, j) for j in around], 2)  # (N, width, window)
        share = values.shape[1] // groups
        out[i] = (weights.repeat_interleave(share, 1) * values).sum(2)
    first, _, linear = block.expand
    return x + pointwise(linear, relu(norm(first, from_positions(out, x))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("form", "relation"), FORMS)
def test_equals_the_formula(shape, form, relation):
    block = SAN(shape[1], form, relation, 3, reduction=1, group_channels=2, ndim=len(shape) - 2)
    assert block.groups == 3
    check_against(san, block, shape)


def test_a_window_along_time():
    check_against(san, SAN(6, kernel_size=(3, 1, 3), reduction=2), (2, 6, 4, 2, 3))


def test_a_pairwise_block_on_one_frame_is_the_images():
    torch.manual_seed(0)
    image, clip = SAN(8, kernel_size=3, ndim=2).eval(), SAN(8, kernel_size=3).eval()
    state = {key: value[:, :, None] if value.ndim == 4 else value for key, value in image.state_dict().items()}
    width = state["gamma.2.weight"].shape[1]
    order = [i for i in range(width + 1) if i != width - 2]  # the coordinate along T comes first
    for key in ("weight", "bias", "running_mean", "running_var"):
        longer = torch.ones(width + 1)
        longer[order] = state[f"gamma.0.{key}"]
        state[f"gamma.0.{key}"] = longer
    longer = torch.zeros(*state["gamma.2.weight"].shape[:1], width + 1, 1, 1, 1)
    longer[:, order] = state["gamma.2.weight"]
    state["gamma.2.weight"] = longer
    place = torch.zeros(3, 3, 1, 1, 1)
    place[1:, 1:] = state["place.weight"]
    state["place.weight"] = place
    clip.load_state_dict(state)
    x = torch.randn(2, 8, 5, 6)
    torch.testing.assert_close(clip(x[:, :, None])[:, :, 0], image(x))


def test_pairwise_weights_sum_to_one():
    weights = SAN(8, kernel_size=3, ndim=2, group_channels=1)._attention(torch.randn(2, 8, 4, 5))
    assert weights.shape == (2, 2, 4, 5, 3, 3)
    torch.testing.assert_close(weights.sum((-1, -2)), torch.ones(2, 2, 4, 5))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='form must be "pairwise" or "patchwise"'):
        SAN(8, "pairs")
    with pytest.raises(ValueError, match="relation of a patchwise block must be concatenation or product"):
        SAN(8, "patchwise", "subtraction")
    with pytest.raises(ValueError, match="group_channels must be at least 1"):
        SAN(8, group_channels=0)
