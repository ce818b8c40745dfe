import pytest
import torch

from cbam3d.attention import TAM
from tests.attention.reference import check_against, conv, linear, norm, pointwise, relu, sigmoid, softmax


def tam(block, x):
    c, t = x.shape[1:3]
    pooled = x.flatten(3).mean(3)
    local = conv(block.local[0], pooled)
    local = sigmoid(pointwise(block.local[3], relu(norm(block.local[1], local))))
    y = x * local[..., None, None]
    out = torch.zeros_like(x)
    for channel in range(c):
        hidden = relu(norm(block.kernel[1], linear(block.kernel[0], pooled[:, channel])))
        kernel = softmax(linear(block.kernel[3], hidden), 1)
        for frame in range(t):
            for k in range(kernel.shape[1]):
                source = frame + k - kernel.shape[1] // 2
                if 0 <= source < t:
                    part = kernel[:, k, None, None] * y[:, channel, source]
                    place = torch.zeros_like(x)
                    place[:, channel, frame] = 1
                    out = out + place * part[:, None, None]
    return out


@pytest.mark.parametrize("kernel_size", [3, 5])
def test_equals_the_formula(kernel_size):
    check_against(tam, TAM(3, num_frames=4, kernel_size=kernel_size, reduction=2), (2, 3, 4, 2, 3))


def test_another_number_of_frames_is_an_error():
    with pytest.raises(ValueError, match="tam was built for 8 frames, the features have 4"):
        TAM(8, num_frames=8)(torch.zeros(1, 8, 4, 2, 2))


def test_an_image_has_no_time():
    with pytest.raises(ValueError, match="no time axis"):
        TAM(8, num_frames=8, ndim=2)
