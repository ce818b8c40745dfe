import pytest
import torch

from cbam3d.attention import TEA
from cbam3d.attention.tea import MotionExcitation
from tests.attention.reference import check_against, conv, norm, pointwise, randomised, sigmoid


def motion(block, x):
    """What moves, frame by frame, pooled over positions."""
    reduced = norm(block.squeeze[1], pointwise(block.squeeze[0], x))
    frames = []
    for t in range(x.shape[2]):
        moved = torch.zeros_like(reduced[:, :, :1])
        if t + 1 < x.shape[2]:
            moved = conv(block.next, reduced[:, :, t + 1 : t + 2]) - reduced[:, :, t : t + 1]
        frames.append(moved.sum((3, 4), keepdim=True) / (moved.shape[3] * moved.shape[4]))
    return torch.cat(frames, 2)


def excitation(block, x):
    """The paper's x + x (2σ - 1)."""
    weights = sigmoid(norm(block.expand[1], pointwise(block.expand[0], motion(block, x))))
    return x + x * (2 * weights - 1)


def tea(block, x):
    y = excitation(block.motion, x)
    width = x.shape[1] // 4
    parts = [y[:, : x.shape[1] - 3 * width]]
    for i in range(3 if width else 0):
        start = x.shape[1] - (3 - i) * width
        part = y[:, start : start + width]
        if i:
            part = part + parts[-1]
        parts.append(conv(block.in_frames[i], conv(block.along_time[i], part)))
    return x + block.gamma.value * (torch.cat(parts, 1) - x)


@pytest.mark.parametrize("channels", [8, 9, 3])
def test_equals_the_formula(channels):
    check_against(tea, TEA(channels, reduction=2), (2, channels, 4, 3, 4))


def test_motion_excitation_equals_the_formula():
    check_against(excitation, MotionExcitation(6, reduction=2), (2, 6, 4, 3, 4))


def test_a_still_clip_excites_all_frames_but_by_the_kernel():
    """With a kernel that is the identity there is no motion in a still clip: every frame has the same factor."""
    block = randomised(MotionExcitation(4, reduction=1)).eval()
    with torch.no_grad():
        block.next.weight.zero_()[:, :, 0, 1, 1] = 1
    maps = block.attention_map(torch.randn(1, 4, 1, 5, 5).expand(1, 4, 3, 5, 5))
    torch.testing.assert_close(maps, maps[:, :, :1].expand_as(maps))


def test_an_image_has_no_time():
    with pytest.raises(ValueError, match="no time axis"):
        TEA(8, ndim=2)
