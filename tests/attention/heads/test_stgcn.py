import pytest
import torch

from cbam3d.attention.heads import STGCN
from tests.attention.reference import check_against, linear, relu


def graph(branch, nodes):
    """One sample's, (P, C): with the degrees computed, as in Kipf and Welling."""
    phi = nodes @ branch.relate.weight.T
    count = len(nodes)
    squares = torch.stack([torch.stack([(phi[i] * phi[j]).sum() ** 2 for j in range(count)]) for i in range(count)])
    adjacency = squares / squares.sum(1, keepdim=True) + torch.eye(count, dtype=nodes.dtype)
    degree = torch.diag(adjacency.sum(1) ** -0.5)
    for layer in branch.layers:
        nodes = nodes + relu(degree @ adjacency @ degree @ nodes @ layer.weight.T)
    return nodes


def stgcn(head, x):
    rows = []
    for clip in x:
        height = clip.shape[2] // head.parts
        frames = [
            torch.stack([clip[:, t, k * height : (k + 1) * height].mean((1, 2)) for k in range(head.parts)])
            for t in range(clip.shape[1])
        ]
        temporal = graph(head.temporal, torch.cat(frames)).max(0).values
        structural = sum(graph(head.structural, frame).max(0).values for frame in frames) / len(frames)
        rows.append(torch.cat([clip.mean((1, 2, 3)), temporal, structural]))
    return linear(head.classifier, torch.stack(rows))


@pytest.mark.parametrize("shape", [(2, 5, 3, 4, 3), (2, 5, 1, 2, 2)])
def test_equals_the_formula(shape):
    check_against(stgcn, STGCN(5, 3, parts=2), shape)


def test_the_order_of_frames_and_of_parts_does_not_matter():
    torch.manual_seed(0)
    head, x = STGCN(8, 3).eval(), torch.randn(2, 8, 5, 8, 4)
    torch.testing.assert_close(head(x[:, :, torch.randperm(5)]), head(x))
    torch.testing.assert_close(head(x.flip(0)), head(x).flip(0))
    torch.testing.assert_close(head(x.flip(4)), head(x))
    parts = torch.tensor([2, 3, 6, 7, 0, 1, 4, 5])
    torch.testing.assert_close(head(x[:, :, :, parts]), head(x))
    rows = torch.tensor([0, 2, 1, 3, 4, 5, 6, 7])  # over the border of two parts
    assert not torch.allclose(head(x[:, :, :, rows]), head(x), atol=1e-4)


def test_a_node_takes_one_in_all():
    head = STGCN(8, 3)
    adjacency = head.temporal.adjacency(torch.randn(2, 6, 8))
    assert adjacency.min() >= 0
    torch.testing.assert_close(adjacency.sum(2), torch.ones(2, 6))
