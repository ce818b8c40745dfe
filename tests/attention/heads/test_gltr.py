import pytest
import torch

from cbam3d.attention.heads import GLTR
from tests.attention.reference import check_against, conv, linear, norm, pointwise, relu, softmax


def gltr(head, x):
    """Frame by frame."""
    frames = torch.stack([x[:, :, t].flatten(2).sum(2) / x[0, 0, t].numel() for t in range(x.shape[2])], 2)
    pyramid = torch.cat([conv(layer, frames) for layer in head.pyramid], 1)
    query, key = (relu(norm(layer[1], pointwise(layer[0], pyramid))) for layer in (head.query, head.key))
    value = pointwise(head.value, pyramid)
    rows = []
    for t in range(x.shape[2]):
        scores = torch.stack([(query[:, :, t] * key[:, :, u]).sum(1) for u in range(x.shape[2])], 1)
        weights = softmax(scores, 1)
        attended = sum(weights[:, u, None] * value[:, :, u] for u in range(x.shape[2]))
        rows.append(pyramid[:, :, t] + pointwise(head.out, attended[:, :, None])[:, :, 0])
    return linear(head.classifier, sum(rows) / len(rows))


@pytest.mark.parametrize("shape", [(2, 5, 6, 2, 3), (2, 5, 1, 2, 2)])
def test_equals_the_formula(shape):
    check_against(gltr, GLTR(5, 3, dim=4), shape)


def test_it_sees_the_order_of_frames_and_not_of_positions():
    torch.manual_seed(0)
    head, x = GLTR(8, 3).eval(), torch.randn(2, 8, 6, 3, 3)
    assert not torch.allclose(head(x.flip(2)), head(x), atol=1e-3)
    torch.testing.assert_close(head(x.flip(3)), head(x))
    torch.testing.assert_close(head(x.flip(0)), head(x).flip(0))
    torch.testing.assert_close(head(x[:, :, :, :1, :1]), head(x[:, :, :, 0, 0]))


def test_mistakes_are_named():
    with pytest.raises(ValueError, match="dilations must name at least one"):
        GLTR(8, 2, dilations=[])
