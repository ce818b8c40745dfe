import pytest
import torch

from cbam3d.attention import STN
from cbam3d.attention.nd import pool_to_grid
from tests.attention.reference import check_against, linear, pointwise, relu
from tests.attention.test_deformable import value_at


def less(module, args, output):
    """Parameters at random would move everything beyond the edges."""
    return output / 20


def maps(block, x):
    """θ, (N, T or 1, axes, axes + 1)."""
    reduced = relu(pointwise(block.reduce[0], x))
    if x.ndim == 4:
        reduced = reduced[:, :, None]
    if block.over == "volume" and x.ndim == 5:
        vectors = [pool_to_grid(reduced, (4, 4, 4)).flatten(1)]
    elif block.over == "clip":
        vectors = [pool_to_grid(reduced.sum(2) / reduced.shape[2], (4, 4)).flatten(1)]
    else:
        vectors = [pool_to_grid(reduced[:, :, t], (4, 4)).flatten(1) for t in range(reduced.shape[2])]
    still = torch.eye(block.axes, block.axes + 1, dtype=x.dtype)
    return torch.stack(
        [still + less(block.locate, (), linear(block.locate, v)).reshape(-1, *still.shape) for v in vectors], 1
    )


def stn(block, x):
    """Position by position, in coordinates from -1 to 1 between the outer edges."""
    theta = maps(block, x)
    out = torch.zeros_like(x)
    for index in torch.cartesian_prod(torch.arange(len(x)), *(torch.arange(n) for n in x.shape[2:])).tolist():
        n, place = index[0], index[1:]
        volume = block.axes == len(place)
        inner, sides = (place, x.shape[2:]) if volume else (place[1:], x.shape[3:])
        affine = theta[n, 0 if volume or theta.shape[1] == 1 else place[0]]
        point = [(2 * p + 1) / side - 1 for p, side in zip(inner, sides, strict=True)]
        moved = affine @ torch.tensor([*reversed(point), 1], dtype=x.dtype)  # x first
        back = [((m + 1) * side - 1) / 2 for m, side in zip(reversed(list(moved)), sides, strict=True)]
        frame = x if volume else x[:, :, place[0]]
        column = torch.zeros_like(out)
        column[(n, slice(None), *place)] = value_at(frame, n, back)
        out = out + column
    return out


@pytest.mark.parametrize(
    ("shape", "over"),
    [((2, 3, 5, 4), "frame"), *(((1, 3, 3, 4, 3), over) for over in ("frame", "clip", "volume"))],
)
def test_equals_the_formula(shape, over):
    block = STN(shape[1], over, 1, ndim=len(shape) - 2)
    block.locate.register_forward_hook(less)
    check_against(stn, block, shape)


def with_theta(block, theta):
    """Its network puts out θ whatever comes in."""
    still = torch.eye(block.axes, block.axes + 1)
    with torch.no_grad():
        block.locate.bias.copy_((torch.tensor(theta) - still).flatten())
    return block


def test_the_identity_is_exact_and_learns():
    x = torch.randn(2, 8, 3, 6, 7, requires_grad=True)
    for over in ("frame", "clip", "volume"):
        block = STN(8, over)
        out = block(x)
        assert torch.equal(out, x)
        gradient = torch.autograd.grad((out * torch.randn_like(out)).sum(), block.locate.weight)[0]
        assert gradient.abs().max() > 1e-3


def test_maps_that_are_known():
    x = torch.randn(2, 4, 6, 6)
    mirror = with_theta(STN(4, ndim=2), [[-1.0, 0, 0], [0, 1, 0]])
    torch.testing.assert_close(mirror(x), x.flip(-1), atol=1e-5, rtol=1e-5)
    quarter = with_theta(STN(4, ndim=2), [[0.0, -1, 0], [1, 0, 0]])
    # the place (x, y) takes what is at (-y, x): the upper right corner takes the lower right one
    torch.testing.assert_close(quarter(x), x.rot90(1, (2, 3)), atol=1e-5, rtol=1e-5)
    clip = torch.randn(2, 4, 5, 6, 6)
    backwards = with_theta(STN(4, "volume"), [[1.0, 0, 0, 0], [0, 1, 0, 0], [0, 0, -1, 0]])
    torch.testing.assert_close(backwards(clip), clip.flip(2), atol=1e-5, rtol=1e-5)
    shifted = with_theta(STN(4, ndim=2), [[1.0, 0, 2 / 6], [0, 1, 0]])  # by one of six positions
    torch.testing.assert_close(shifted(x)[..., :-1], x[..., 1:], atol=1e-5, rtol=1e-5)
    assert shifted(x)[..., -1].abs().max() < 1e-5


def test_small_changes_count_in_mixed_precision():
    block, x = STN(8, ndim=2), torch.randn(2, 8, 32, 32)
    torch.nn.init.constant_(block.locate.bias, 0.003)
    with torch.autocast("cpu", torch.bfloat16):
        found = block(x)
    torch.testing.assert_close(found, block(x), atol=0.01, rtol=0.01)
    assert (found - x).abs().max() > 0.05


def test_frames_are_moved_alike_or_apart():
    torch.manual_seed(0)
    x = torch.randn(1, 4, 3, 6, 6)
    for over, same in (("frame", False), ("clip", True)):
        block = STN(4, over)
        torch.nn.init.normal_(block.locate.weight)
        theta = block.theta(x)
        assert theta.shape == (1, 1 if same else 3, 2, 3)


def test_mistakes_are_named():
    with pytest.raises(ValueError, match='over must be "frame"'):
        STN(8, "time")
