import pytest
import torch

from cbam3d.data.augment import BatchTransform, eval_transform, train_transform
from cbam3d.data.batch import Sample, Visit, pack

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def clip(height=20, width=30, frames=4, seed=0):
    return torch.randint(
        0, 256, (3, frames, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def packed(*views, epoch=0):
    return pack([Sample(Visit(epoch, i), 0, [view]) for i, view in enumerate(views)])


FULL = train_transform(16, crop_scale=(0.3, 1.0), flip=True, color_jitter=(0.4, 0.4, 0.4, 0.1))


def test_the_centre_is_cut_and_normalised():
    view = clip()
    out = BatchTransform(eval_transform(16), MEAN, STD, 0)(packed(view))
    assert out.shape == (1, 3, 4, 16, 16)
    centre = view[:, :, 2:18, 7:23].float() / 255
    expected = (centre - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    torch.testing.assert_close(out[0], expected)


def test_images_and_clips_of_one_frame_agree():
    view = clip(frames=1)
    transform = BatchTransform(FULL, MEAN, STD, 7)
    torch.testing.assert_close(transform(packed(view))[0, :, 0], transform(packed(view[:, 0]))[0], rtol=0, atol=0)


def test_all_frames_of_a_clip_change_alike():
    still = clip(frames=1).expand(3, 5, 20, 30)
    out = BatchTransform(FULL, MEAN, STD, 0)(packed(still, still))
    for sample in out:
        assert torch.equal(sample, sample[:, :1].expand_as(sample))
    assert not torch.equal(out[0], out[1])  # but two samples differently


def test_parameters_follow_from_seed_epoch_and_index_alone():
    views = [clip(seed=i) for i in range(3)]
    transform = BatchTransform(FULL, MEAN, STD, 0)
    together = transform(packed(*views))
    torch.rand(5)  # the state of the global generator must not matter, nor be touched
    state = torch.random.get_rng_state()
    alone = transform(pack([Sample(Visit(0, 2), 0, [views[2]])]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(alone[0], together[2])
    assert not torch.equal(transform(packed(*views, epoch=1)), together)
    assert not torch.equal(BatchTransform(FULL, MEAN, STD, 1)(packed(*views)), together)


def test_views_of_one_sample_differ():
    view = clip()
    out = BatchTransform(FULL, MEAN, STD, 0)(pack([Sample(Visit(0, 0), 0, [view, view])]))
    assert not torch.equal(out[0], out[1])


def test_half_of_the_samples_are_flipped():
    view = clip(16, 16)
    transform = BatchTransform(train_transform(16, flip=True), (0, 0, 0), (1, 1, 1), 0)
    out = (transform(packed(*[view] * 400)) * 255).round().to(torch.uint8)
    flipped = [torch.equal(sample, view.flip(-1)) for sample in out]
    straight = [torch.equal(sample, view) for sample in out]
    assert sum(flipped) + sum(straight) == 400
    assert 160 < sum(flipped) < 240  # standard deviation 10


def test_a_padded_cut_shifts_the_picture_over_black():
    view = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    transform = BatchTransform(train_transform(16, crop_padding=4), (0, 0, 0), (1, 1, 1), 0)
    white = transform(packed(*[view] * 600)).mean((1, 2, 3))
    # Shifts of -4 … 4 a side, evenly: on average 16 - 20/9 of 16 rows stay.
    assert white.mean().item() == pytest.approx(((16 - 20 / 9) / 16) ** 2, abs=0.015)
    assert white.min() >= (12 / 16) ** 2 - 1e-6


def test_nothing_is_flipped_unless_asked():
    view = clip(16, 16)
    out = BatchTransform(train_transform(16), (0, 0, 0), (1, 1, 1), 0)(packed(*[view] * 50))
    assert all(torch.equal((sample * 255).round().to(torch.uint8), view) for sample in out)
