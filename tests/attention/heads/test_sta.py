import pytest
import torch

from cbam3d.attention.heads import STA, frame_disagreement
from tests.attention.reference import check_against, linear


def rows_of(height, parts):
    """The first parts are longer by one, where they cannot be equal."""
    short, longer = divmod(height, parts)
    lengths = [short + (k < longer) for k in range(parts)]
    return [slice(sum(lengths[:k]), sum(lengths[: k + 1])) for k in range(parts)]


def shares(x):
    """g, (N, T, H, W)."""
    energy = sum(x[:, c] ** 2 for c in range(x.shape[1]))
    return energy / energy.sum((2, 3), keepdim=True)


def sta(head, x):
    """Maps are built as the paper draws them, and averaged."""
    g = shares(x)
    parts = rows_of(x.shape[3], min(head.parts, x.shape[3]))
    scores = torch.stack([g[:, :, rows].sum((2, 3)) for rows in parts], 2)
    scores = scores / scores.sum(1, keepdim=True)
    first, second = torch.zeros_like(x[:, :, 0]), torch.zeros_like(x[:, :, 0])
    for n in range(len(x)):
        for k, rows in enumerate(parts):
            best = max(range(x.shape[2]), key=lambda t: float(scores[n, t, k].detach()))
            first[n, :, rows] = x[n, :, best, rows]
            second[n, :, rows] = sum(scores[n, t, k] * x[n, :, t, rows] for t in range(x.shape[2]))
    return linear(head.classifier, torch.cat([first.mean((2, 3)), second.mean((2, 3))], 1))


@pytest.mark.parametrize("shape", [(2, 5, 4, 8, 3), (2, 5, 3, 5, 2), (2, 5, 3, 2, 2), (2, 5, 1, 4, 4)])
def test_equals_the_formula(shape):
    check_against(sta, STA(5, 3), shape)


def test_the_order_of_frames_does_not_matter():
    head, x = STA(8, 3).eval(), torch.randn(2, 8, 5, 6, 4)
    order = torch.randperm(5)
    torch.testing.assert_close(head(x[:, :, order]), head(x))
    torch.testing.assert_close(head.scores(x[:, :, order]), head.scores(x)[:, order])
    torch.testing.assert_close(head.scores(x).sum(1), torch.ones(2, 4))


def test_disagreement_by_hand():
    """All energy at one position, then at another: two ones in the difference."""
    x = torch.zeros(1, 3, 3, 2, 2)
    x[0, :, 0, 0, 0] = 5
    x[0, :, 1, 1, 1] = 2
    x[0, :, 2, 1, 1] = 9
    torch.testing.assert_close(frame_disagreement(x), torch.tensor(2**0.5 / 2))
    assert frame_disagreement(x[:, :, :1]) == 0
    x = torch.randn(2, 3, 4, 3, 3, requires_grad=True)
    expected = torch.stack([(shares(x)[:, t + 1] - shares(x)[:, t]).flatten(1).norm(dim=1) for t in range(3)]).mean()
    torch.testing.assert_close(frame_disagreement(x), expected)
    assert torch.autograd.grad(frame_disagreement(x), x)[0].isfinite().all()


def test_empty_features_are_numbers():
    assert STA(4, 2)(torch.zeros(1, 4, 3, 4, 4)).isfinite().all()
