import pytest
import torch

from cbam3d.attention import RGA
from tests.attention.reference import check_against, norm, pointwise, relu, sigmoid, spread


def embed(layers, x):
    return relu(norm(layers[1], pointwise(layers[0], x)))


def weights_of_nodes(relations, nodes):
    """Nodes (N, n, d) -> logits (N, n), a node at a time."""
    features = nodes.transpose(1, 2)
    theta, phi, psi = (embed(layers, features) for layers in (relations.theta, relations.phi, relations.psi))
    n = nodes.shape[1]
    r = {(i, j): (theta[:, :, i] * phi[:, :, j]).sum(1) for i in range(n) for j in range(n)}
    logits = []
    for i in range(n):
        stacked = torch.stack([r[i, j] for j in range(n)] + [r[j, i] for j in range(n)], 1)
        joint = embed(relations.nu, stacked[:, :, None])
        both = torch.cat([psi[:, :, i].mean(1)[:, None, None], joint], 1)
        hidden = embed(relations.last[0], both)
        logits.append(norm(relations.last[2], pointwise(relations.last[1], hidden))[:, 0, 0])
    return torch.stack(logits, 1)


def rga(block, x):
    """On features that have the grid's size."""
    positions = weights_of_nodes(block.spatial, x.flatten(2).transpose(1, 2))
    x = x * sigmoid(positions.reshape(len(x), 1, *x.shape[2:]))
    return x * spread(sigmoid(weights_of_nodes(block.channel, x.flatten(2))), x)


@pytest.mark.parametrize("shape", [(2, 6, 3, 4), (2, 5, 2, 3, 2)])
def test_equals_the_formula(shape):
    check_against(rga, RGA(shape[1], grid=shape[2:], reduction=2, ndim=len(shape) - 2), shape)


def test_a_grid_of_one_frame_makes_a_clip_of_one_frame_an_image():
    image, clip = RGA(8, ndim=2).eval(), RGA(8, grid=(1, 7, 7)).eval()
    clip.load_state_dict(image.state_dict())
    x = torch.randn(2, 8, 9, 14)
    torch.testing.assert_close(clip(x[:, :, None])[:, :, 0], image(x))


def test_maps():
    maps = RGA(8).eval().attention_maps(torch.randn(2, 8, 5, 9, 9))
    assert maps["spatial"].shape == (2, 1, 5, 9, 9)
    assert maps["channel"].shape == (2, 8, 1, 1, 1)
