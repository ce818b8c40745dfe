import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from cbam3d.data.rand_augment import RandAugment
from cbam3d.data.rng import Purpose, keys_of, uniforms
from tests.conftest import pictures


@pytest.mark.parametrize("shape", [(60, 3, 12, 16), (60, 2, 3, 12, 16)])
def test_a_batch_is_what_its_views_are_one_by_one(shape):
    x, keys = pictures(*shape), keys_of(0, np.arange(60))
    step = RandAugment(2, 9)
    whole = step(x, keys)
    assert whole.dtype == torch.uint8
    for i in range(60):
        assert torch.equal(step(x[i : i + 1], keys[i : i + 1])[0], whole[i])
    assert not torch.equal(whole, x)


@pytest.mark.parametrize("magnitude", [0, 9, 17, 30])
@pytest.mark.parametrize("shape", [(3, 24, 33), (2, 3, 24, 33)])
def test_the_operations_are_torchvisions(shape, magnitude):
    """A view that gets one operation is one of the pictures that torchvision's transform makes of it."""
    x = pictures(1, *shape)
    library = v2.RandAugment(1, magnitude)
    torch.manual_seed(0)
    theirs = distinct(library(x[0]) for _ in range(600))
    ours = distinct(RandAugment(1, magnitude)(x.expand(600, *shape), keys_of(0, np.arange(600))))
    assert len(ours) == len(theirs)
    assert len(ours) > 18 or magnitude == 0
    same = (ours[:, None] == theirs).flatten(2).float().mean(2)
    assert same.amax(1).min() > 0.97  # a position halfway between two pixels may be rounded to the other one
    assert same.amax(0).min() > 0.97


def distinct(views):
    return torch.stack(list({view.numpy().tobytes(): view for view in views}.values()))


def test_every_operation_and_sign_is_drawn_equally_often():
    drawn = RandAugment(2, 9).draw(keys_of(0, np.arange(14000)), (12, 16))
    chosen = [array for array in drawn.parameters if array.ndim == 1]
    assert sum(map(len, chosen)) == 2 * 14000
    (moved, matrices), counts = drawn.parameters[:2], [len(array) for array in chosen if len(array) < 1000]
    assert abs(len(moved) - 5000) < 4 * 57
    assert len(np.unique(matrices.reshape(-1, 6), axis=0)) == 10
    assert len(counts) == 2 * 2 * 9
    for count in counts:
        assert abs(count - 500) < 4 * 22


def test_crops_and_operations_draw_apart():
    keys = keys_of(0, np.arange(400))
    first, second = (uniforms(keys, 4, purpose) for purpose in (Purpose.RESIZED_CROP, Purpose.RAND_AUGMENT))
    assert (np.abs(np.corrcoef(first.T, second.T)[:4, 4:]) < 0.2).all()  # four standard errors
