"""Batch-wise changes against torchvision's per-image ones: the same pictures for the same parameters, and the same
distribution of pictures."""

import numpy as np
import pytest
import torch
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as F

from cbam3d.data import transforms
from cbam3d.data.parameters import send
from cbam3d.data.rng import keys_of

FACTORS = torch.tensor([0.3, 0.8, 1.0, 1.2, 1.9])
SHIFTS = torch.tensor([-0.5, -0.1, 0.0, 0.07, 0.5])


def rotate(x, degrees):
    angles = transforms.rotations(np.radians(degrees), x.shape[-2:])
    return transforms.warp(x, torch.from_numpy(angles))


def pictures(n=5, shape=(3, 12, 12), seed=0):
    x = torch.rand(n, *shape, generator=torch.Generator().manual_seed(seed))
    x[0, :, :4, :4] = 0.5  # grey: no hue
    x[1, 0] = x[1, 1]  # ties between two colours
    return x


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_a_change_is_torchvisions_with_the_same_parameter(name):
    x = pictures()
    amounts = SHIFTS if name == "hue" else FACTORS
    ours = getattr(transforms, f"adjust_{name}")(x, amounts.view(-1, 1, 1, 1))
    theirs = [getattr(F, f"adjust_{name}")(picture, amount.item()) for picture, amount in zip(x, amounts, strict=True)]
    torch.testing.assert_close(ours, torch.stack(theirs), atol=2e-6, rtol=0)


@pytest.mark.parametrize("name", ["brightness", "contrast", "saturation", "hue"])
def test_frames_of_a_clip_change_as_torchvisions(name):
    x = pictures(shape=(4, 3, 8, 8))
    amounts = (SHIFTS if name == "hue" else FACTORS).view(-1, 1, 1, 1, 1)
    ours = getattr(transforms, f"adjust_{name}")(x, amounts)
    for clip, changed, amount in zip(x, ours, amounts, strict=True):
        torch.testing.assert_close(changed, getattr(F, f"adjust_{name}")(clip, amount.item()), atol=2e-6, rtol=0)


def test_turning_is_torchvisions():
    x = pictures(shape=(2, 3, 12, 12))
    angles = np.array([-170.0, -15.0, 0.0, 3.3, 90.0])
    ours = rotate(x, angles)
    for clip, turned, angle in zip(x, ours, angles, strict=True):
        same = (turned == F.rotate(clip, angle)).float().mean()
        assert same > 0.99  # a pixel whose place lies between two may go to either
    assert torch.equal(ours[2], x[2])
    assert torch.equal(ours[4], x[4].rot90(1, (-2, -1)))


def statistics(batch):
    """(N, 3, H, W) -> mean and spread over samples of what the change moves: colours, contrast, places of the light."""
    mean, std = batch.mean((2, 3)), batch.std((2, 3))
    rows = torch.arange(batch.shape[-1], dtype=batch.dtype)
    total = batch.sum((1, 2, 3)).clamp_min(1e-6)
    horizontal = (batch.sum((1, 2)) * rows).sum(1) / total
    vertical = (batch.sum((1, 3)) * rows).sum(1) / total
    parts = torch.cat([mean, std, horizontal[:, None], vertical[:, None]], 1)
    return torch.cat([parts.mean(0), parts.std(0), parts.quantile(0.1, 0), parts.quantile(0.9, 0)])


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (transforms.RandomHorizontalFlip(), v2.RandomHorizontalFlip()),
        (transforms.ColorJitter(0.4, 0.3, 0.2, 0.1), v2.ColorJitter(0.4, 0.3, 0.2, 0.1)),
        (transforms.ColorJitter(0.0, 0.9, 0.0, 0.0), v2.ColorJitter(0.0, 0.9, 0.0, 0.0)),
        (transforms.ColorJitter(0.0, 0.0, 0.0, 0.5), v2.ColorJitter(0.0, 0.0, 0.0, 0.5)),
        (transforms.RandomRotation(15), v2.RandomRotation(15)),
        (transforms.RandomErasing(0.7), v2.RandomErasing(0.7)),
    ],
    ids=["flip", "jitter", "contrast", "hue", "rotation", "erasing"],
)
def test_the_distribution_is_torchvisions(ours, theirs):
    """One picture changed 3,000 times by each: means, spreads and quantiles agree within four standard errors."""
    torch.manual_seed(0)
    picture = torch.rand(3, 16, 16).mul_(torch.linspace(0.2, 1, 16)).clamp_(0.02, 0.98)
    picture[0] *= 0.6
    n = 3000
    batch = picture.expand(n, -1, -1, -1)
    mine = ours(batch, keys_of(1, np.arange(n)))
    other = torch.stack([theirs(picture) for _ in range(n)])
    # halves of torchvision's own show how far chance alone moves each statistic
    noise = torch.stack([statistics(part) for part in other.chunk(10)]).std(0) / 10**0.5
    difference = (statistics(mine) - statistics(other)).abs()
    assert (difference <= 4 * 2**0.5 * noise + 2e-3).all(), difference / (noise + 1e-9)


def test_a_change_that_differs_is_noticed():
    """The comparison above is sharp enough to see a jitter of 0.35 in place of 0.4."""
    picture = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    batch, keys = picture.expand(3000, -1, -1, -1), keys_of(1, np.arange(3000))
    one, other = (transforms.ColorJitter(b, 0.0, 0.0, 0.0)(batch, keys) for b in (0.4, 0.35))
    assert (statistics(one) - statistics(other)).abs().max() > 0.02


def test_erased_rectangles_are_black_and_of_the_papers_sizes():
    out = transforms.RandomErasing(1.0)(torch.ones(2000, 2, 3, 20, 20), keys_of(3, np.arange(2000)))
    assert torch.equal(out, out[:, :1, :1].expand_as(out))  # every frame and colour alike
    black = 1 - out[:, 0, 0]
    heights, widths = black.amax(2).sum(1), black.amax(1).sum(1)
    assert torch.equal(black.sum((1, 2)), heights * widths)  # a rectangle
    share = heights * widths / 400
    assert 0.01 < share.min() < 0.04
    assert 0.30 < share.max() < 0.37
    ratio = heights / widths
    assert 0.2 < ratio.min() < 0.4
    assert 2.5 < ratio.max() < 4.5


def test_parameters_follow_from_the_keys():
    x, keys = pictures(8), keys_of(0, np.arange(8))
    for change in (
        transforms.RandomHorizontalFlip(),
        transforms.ColorJitter(0.4, 0.4, 0.4, 0.1),
        transforms.RandomRotation(30),
        transforms.RandomErasing(0.5),
    ):
        before = x.clone()
        whole = change(x, keys)
        assert torch.equal(x, before)  # its input is left alone
        parts = torch.cat([change(x[:3], keys[:3]), change(x[3:], keys[3:])])
        torch.testing.assert_close(whole, parts, atol=1e-6, rtol=0)
        assert not torch.equal(whole, change(x, keys_of(1, np.arange(8))))


def test_a_picture_that_is_no_square_is_rotated_without_distortion():
    """As torchvision does it, at angles that are no quarter turns."""
    x = torch.rand(1, 3, 24, 40)
    for degrees in (10.0, -35.0):
        expected = F.rotate(x, degrees)
        found = rotate(x, np.array([degrees]))
        assert (found == expected).float().mean() > 0.98  # a pixel on an edge may round elsewhere


def test_a_device_without_float64_gets_float32():
    sent = send([np.array([0.5, 2.0]), np.array([[3]])], torch.device("meta"))
    assert [(one.dtype, tuple(one.shape)) for one in sent] == [(torch.float32, (2,)), (torch.int64, (1, 1))]
