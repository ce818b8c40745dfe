import pytest
import torch

from cbam3d.attention import Coordinate
from tests.attention.reference import SHAPES, check_against, norm, pointwise, sigmoid


def coordinate(block, x):
    out = x
    convs = iter(block.convs)
    pooled = [x.movedim(axis, 2).flatten(3).mean(3) for axis in block.axes]
    hidden = norm(block.shared[1], pointwise(block.shared[0], torch.cat(pooled, 2)))
    hidden = hidden * (hidden + 3).clamp(0, 6) / 6  # h-swish
    start = 0
    for axis, line in zip(block.axes, pooled, strict=True):
        part = hidden[:, :, start : start + line.shape[2]]
        start += line.shape[2]
        gate = sigmoid(pointwise(next(convs), part))
        out = out * gate.reshape(*gate.shape, *(1,) * (x.ndim - 3)).movedim(2, axis)
    return out


@pytest.mark.parametrize("shape", SHAPES)
def test_equals_the_formula(shape):
    check_against(coordinate, Coordinate(shape[1], ndim=len(shape) - 2), shape)


def test_without_the_time_axis_a_clip_of_one_frame_is_an_image():
    image, clip = Coordinate(16, ndim=2).eval(), Coordinate(16, axes=("h", "w")).eval()
    clip.load_state_dict(image.state_dict())
    x = torch.randn(2, 16, 5, 7)
    torch.testing.assert_close(clip(x[:, :, None])[:, :, 0], image(x))


def test_refused_axes():
    with pytest.raises(ValueError, match="axes must be some of h, w"):
        Coordinate(8, axes=("t", "h"), ndim=2)
    with pytest.raises(ValueError, match="each once"):
        Coordinate(8, axes=("h", "h"))
