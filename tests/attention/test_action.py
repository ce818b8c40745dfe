import pytest
import torch

from cbam3d.attention import Action
from tests.attention.reference import check_against, conv, pointwise, relu, sigmoid
from tests.attention.test_tea import motion


def action(block, x):
    if block.fold:
        later = torch.cat([torch.zeros_like(x[:, :, :1]), x[:, :, :-1]], 2)
        earlier = torch.cat([x[:, :, 1:], torch.zeros_like(x[:, :, :1])], 2)
        fold = block.fold
        shifted = torch.cat([earlier[:, :fold], later[:, fold : 2 * fold], x[:, 2 * fold :]], 1)
    else:
        shifted = x
    plane = shifted.sum(1, keepdim=True) / x.shape[1]
    first = shifted * (1 + sigmoid(conv(block.spatio_temporal.conv, plane)))
    squeeze, along, _, expand = block.channel.layers
    pooled = shifted.sum((3, 4)) / (x.shape[3] * x.shape[4])
    weights = sigmoid(pointwise(expand, relu(conv(along, pointwise(squeeze, pooled)))))
    second = shifted * (1 + weights[..., None, None])
    third = shifted * (1 + sigmoid(pointwise(block.motion.expand[0], motion(block.motion, shifted))))
    out = first + second + third
    return x + block.gamma.value * (out - x)


@pytest.mark.parametrize("share", [0.0, 0.25])
def test_equals_the_formula(share):
    check_against(action, Action(8, reduction=2, share=share), (2, 8, 4, 3, 4))


def test_mistakes():
    with pytest.raises(ValueError, match="no time axis"):
        Action(8, ndim=2)
    with pytest.raises(ValueError, match="between 0 and 0"):
        Action(8, share=-1)


def test_the_map_is_that_of_the_shifted_features():
    block, x = Action(8, reduction=2, share=0.25, init="paper"), torch.randn(2, 8, 4, 3, 4)
    plain = Action(8, reduction=2, init="paper")
    plain.load_state_dict(block.state_dict())
    shifted = torch.cat([x[:, :2].roll(-1, 2), x[:, 2:4].roll(1, 2), x[:, 4:]], 1)
    shifted[:, :2, -1] = 0
    shifted[:, 2:4, 0] = 0
    assert torch.equal(block.attention_map(x), plain.attention_map(shifted))
    torch.testing.assert_close(block(x), 3 * shifted * block.attention_map(x))
