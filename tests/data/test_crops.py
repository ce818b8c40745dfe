import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torchvision.transforms import v2

from cbam3d.data import crops
from cbam3d.data.crops import EvalCrops, RandomCrop, RandomResizedCrop, sides
from cbam3d.data.rng import keys_of, torch_seeded
from cbam3d.errors import InputError
from tests.conftest import pictures


def test_every_place_is_cut_equally_often():
    """Each row and column of a picture whose pixels say where they are."""
    x = torch.arange(8 * 10).reshape(1, 1, 8, 10).to(torch.uint8).expand(8000, 3, 8, 10)
    cut = RandomCrop(6)(x, keys_of(0, np.arange(8000)))
    assert cut.shape == (8000, 3, 6, 6)
    corner = cut[:, 0, 0, 0].long()
    assert torch.equal(cut[:, 2, 5, 3], (corner + 53).to(torch.uint8))  # five rows down, three columns right
    counts = torch.bincount(corner, minlength=30).reshape(3, 10)
    assert (counts[:, 5:] == 0).all()
    assert ((counts[:, :5] - 8000 / 15).abs() < 4.5 * (8000 / 15) ** 0.5).all()


def test_padding_is_black_and_all_around():
    x = torch.full((500, 2, 3, 4, 4), 9, dtype=torch.uint8)
    cut = RandomCrop(4, padding=4)(x, keys_of(0, np.arange(500)))
    assert torch.equal(cut, cut[:, :1, :1].expand_as(cut))  # frames and colours alike
    shown = (cut[:, 0, 0] == 9).sum((1, 2))
    assert (cut == 9).sum() + (cut == 0).sum() == cut.numel()
    assert (shown == 0).any()
    assert (shown == 16).any()


@pytest.mark.parametrize("size", [8, (6, 10), (30, 40)])
@pytest.mark.parametrize("shape", [(3, 2, 3, 12, 16), (3, 3, 24, 90)])
def test_resized_crops_are_torchvisions(shape, size, monkeypatch):
    x, keys = pictures(*shape), keys_of(0, np.arange(3))
    step = RandomResizedCrop(size, (0.2, 1.0))
    expected = torch.stack(
        [
            v2.functional.resized_crop(view.float(), *box, list(sides(size)), antialias=True)
            for view, box in zip(x, step.boxes(keys, shape[-2:]).tolist(), strict=True)
        ]
    )
    for small in (0, 2**30):  # one by one, and all at once
        monkeypatch.setattr(crops, "_SMALL", small)
        whole = step(x, keys)
        assert whole.dtype == torch.uint8
        assert (whole.float() - expected).abs().max() < 1.01  # rounding
        assert torch.equal(step(x[1:2], keys[1:2]), whole[1:2])
        assert not torch.equal(step(x[1:2], keys[2:3]), whole[1:2])
    at_once = crops._resized_crops(x.float(), torch.from_numpy(step.boxes(keys, shape[-2:])), sides(size))
    assert (at_once - expected).abs().max() <= 0.5 + 1e-3  # of which 0.5 for rounding


def test_the_distribution_of_resized_crops_is_torchvisions():
    """Area, aspect ratio and corner of 4000 crops, against those of torchvision's transform."""
    size, view = (60, 80), torch.zeros(3, 60, 80)
    ours = RandomResizedCrop(8, (0.2, 1.0)).boxes(keys_of(0, np.arange(4000)), size)
    transform = v2.RandomResizedCrop(8, scale=(0.2, 1.0))
    with torch_seeded(0):
        drawn = [transform.make_params([view]) for _ in range(4000)]
    theirs = np.array([[one[name] for name in ("top", "left", "height", "width")] for one in drawn])
    assert ((ours >= 0) & (ours[:, :2] + ours[:, 2:] <= size).all(axis=1, keepdims=True)).all()
    for measure in (
        *(lambda boxes, i=i: boxes[:, i] for i in range(4)),
        lambda boxes: boxes[:, 2] * boxes[:, 3],
        lambda boxes: boxes[:, 2] / boxes[:, 3],
    ):
        assert ks_2samp(measure(ours), measure(theirs)).pvalue > 1e-4


def test_where_no_crop_fits_the_largest_one_in_the_centre_is_taken():
    step = RandomResizedCrop(8, (0.9, 1.0))
    assert (step.boxes(keys_of(0, np.arange(5)), (10, 100)) == [0, 43, 10, 13]).all()  # 10 x 4/3 pixels wide
    assert (step.boxes(keys_of(0, np.arange(5)), (100, 12)) == [42, 0, 16, 12]).all()


@pytest.mark.parametrize(("height", "width"), [(16, 30), (30, 16), (16, 16)])
def test_three_crops_lie_along_the_longer_side(height, width):
    view = pictures(1, 4, 3, height, width)
    first, middle, last = EvalCrops(16, 3)(view, np.zeros(1))
    assert torch.equal(first, view[0, ..., :16, :16])
    assert torch.equal(last, view[0, ..., height - 16 :, width - 16 :])
    assert torch.equal(middle, EvalCrops(16)(view, np.zeros(1))[0])
    assert middle.shape == (4, 3, 16, 16)


def test_mirror_images_follow_their_squares():
    view = pictures(2, 3, 6, 8)
    out = EvalCrops(6, 1, flip=True)(view, np.zeros(2))
    assert torch.equal(out[0], view[0, ..., 1:7])
    assert torch.equal(out[1], out[0].flip(-1))
    assert torch.equal(out[2], view[1, ..., 1:7])


@pytest.mark.parametrize("cut", [RandomCrop(9), EvalCrops(9)])
def test_a_picture_that_is_too_small_is_an_error(cut):
    with pytest.raises(InputError, match="a crop of 9 pixels is larger than the image"):
        cut(pictures(2, 3, 8, 12), keys_of(0, np.arange(2)))


def test_height_and_width_may_differ():
    view = torch.arange(20 * 30).reshape(1, 1, 1, 20, 30)
    (centre,) = EvalCrops((10, 20))(view, np.zeros(1))
    assert torch.equal(centre[0, 0], view[0, 0, 0, 5:15, 5:25])
    first, _, last = EvalCrops((8, 30), 3)(view, np.zeros(1))  # along the height, where there is more room
    assert torch.equal(first[0, 0], view[0, 0, 0, :8])
    assert torch.equal(last[0, 0], view[0, 0, 0, 12:])
    random = RandomCrop((10, 20))(view, keys_of(0, np.arange(1)))
    assert random.shape == (1, 1, 1, 10, 20)
    assert torch.equal(random[..., 1:, :] - random[..., :-1, :], torch.full((1, 1, 1, 9, 20), 30))
    with pytest.raises(InputError, match="a crop of 21x20 pixels is larger than the image of 20x30"):
        EvalCrops((21, 20))(view, np.zeros(1))
