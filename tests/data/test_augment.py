import pytest
import torch

from cbam3d.data.augment import BatchTransform, Mix, train_crops, train_transforms
from cbam3d.data.batch import Sample, SampleIndex, pack
from cbam3d.data.crops import EvalCrops
from cbam3d.data.transforms import RandomRotation

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


def clip(height=20, width=30, frames=4, seed=0):
    return torch.randint(
        0, 256, (3, frames, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def packed(*views, epoch=0):
    return pack([Sample(SampleIndex(epoch, i), 0, [view]) for i, view in enumerate(views)])


CUTS = train_crops(16, crop_scale=(0.3, 1.0), rand_augment=(2, 9))
CHANGES = train_transforms(flip=True, color_jitter=(0.4, 0.4, 0.4, 0.1), rotation=15, erasing=0.5)


def full(seed=0):
    """Everything that training can do to a picture."""
    return BatchTransform(CUTS, CHANGES, MEAN, STD, seed)


def unscaled(cuts, changes=()):
    """Without normalisation: 0 … 1."""
    return BatchTransform(cuts, changes, (0, 0, 0), (1, 1, 1), 0)


def test_the_centre_is_cut_and_normalised():
    view = clip()
    out = BatchTransform([EvalCrops(16)], [], MEAN, STD, 0)(packed(view))
    assert out.shape == (1, 3, 4, 16, 16)
    centre = view[:, :, 2:18, 7:23].float() / 255
    expected = (centre - torch.tensor(MEAN).view(3, 1, 1, 1)) / torch.tensor(STD).view(3, 1, 1, 1)
    torch.testing.assert_close(out[0], expected)


@pytest.mark.cuda
def test_the_gpu_gives_the_same_pictures():
    changes = [
        change for change in CHANGES if not isinstance(change, RandomRotation)
    ]  # whose nearest pixels may differ
    transform = BatchTransform(train_crops(16, crop_padding=4), changes, MEAN, STD, 0)
    views = packed(*[clip(seed=i) for i in range(6)])
    on_gpu = transform(views.to(torch.device("cuda")))
    assert on_gpu.device.type == "cuda"
    torch.testing.assert_close(on_gpu.cpu(), transform(views), rtol=1e-4, atol=1e-5)


def test_images_and_clips_of_one_frame_agree():
    view = clip(frames=1)
    transform = full(7)
    torch.testing.assert_close(transform(packed(view))[0, :, 0], transform(packed(view[:, 0]))[0], rtol=0, atol=0)


def test_all_frames_of_a_clip_change_alike():
    still = clip(frames=1).expand(3, 5, 20, 30)
    out = full()(packed(still, still))
    for sample in out:
        assert torch.equal(sample, sample[:, :1].expand_as(sample))
    assert not torch.equal(out[0], out[1])  # but two samples differently


def test_parameters_follow_from_seed_epoch_and_index_alone():
    views = [clip(seed=i) for i in range(3)]
    transform = full()
    together = transform(packed(*views))
    torch.rand(5)  # the state of the global generator must not matter, nor be touched
    state = torch.random.get_rng_state()
    alone = transform(pack([Sample(SampleIndex(0, 2), 0, [views[2]])]))
    assert torch.equal(torch.random.get_rng_state(), state)
    assert torch.equal(alone[0], together[2])
    assert not torch.equal(transform(packed(*views, epoch=1)), together)
    assert not torch.equal(full(1)(packed(*views)), together)


def test_views_of_one_sample_differ():
    view = clip()
    out = full()(pack([Sample(SampleIndex(0, 0), 0, [view, view])]))
    assert not torch.equal(out[0], out[1])


def test_half_of_the_samples_are_flipped():
    view = clip(16, 16)
    transform = unscaled(train_crops(16), train_transforms(flip=True))
    out = (transform(packed(*[view] * 400)) * 255).round().to(torch.uint8)
    flipped = [torch.equal(sample, view.flip(-1)) for sample in out]
    straight = [torch.equal(sample, view) for sample in out]
    assert sum(flipped) + sum(straight) == 400
    assert 160 < sum(flipped) < 240  # standard deviation 10


def test_a_padded_cut_shifts_the_picture_over_black():
    view = torch.full((3, 16, 16), 255, dtype=torch.uint8)
    transform = unscaled(train_crops(16, crop_padding=4))
    white = transform(packed(*[view] * 600)).mean((1, 2, 3))
    # Shifts of -4 … 4 a side, evenly: on average 16 - 20/9 of 16 rows stay.
    assert white.mean().item() == pytest.approx(((16 - 20 / 9) / 16) ** 2, abs=0.015)
    assert white.min() >= (12 / 16) ** 2 - 1e-6


def test_nothing_is_flipped_unless_asked():
    view = clip(16, 16)
    out = unscaled(train_crops(16))(packed(*[view] * 50))
    assert all(torch.equal((sample * 255).round().to(torch.uint8), view) for sample in out)


def test_crops_of_a_view_follow_each_other_in_the_batch():
    views = [clip(16, 20, seed=i) for i in range(2)]
    out = unscaled([EvalCrops(16, 3)])(packed(*views))
    assert out.shape == (6, 3, 4, 16, 16)
    for i, view in enumerate(views):
        for j, left in enumerate((0, 2, 4)):
            expected = view[..., left : left + 16].float() / 255
            torch.testing.assert_close(out[3 * i + j], expected)


@pytest.mark.parametrize("shape", [(4, 3, 8, 8), (4, 3, 2, 8, 8), (4, 16, 5)])  # images, clips, tokens
def test_mixup_is_a_weighted_sum_of_neighbours_in_the_batch(shape):
    inputs, labels = torch.rand(shape), torch.tensor([0, 1, 2, 0])
    indices = [SampleIndex(0, i) for i in range(4)]
    mixed, targets = Mix(3, mixup=1.0, cutmix=0.0, seed=0)(indices, inputs, labels)
    weight = targets[1, 1].item()  # sample 1 is mixed with sample 0
    assert 0 < weight < 1
    torch.testing.assert_close(targets.sum(1), torch.ones(4))
    torch.testing.assert_close(mixed, weight * inputs + (1 - weight) * inputs.roll(1, 0))
    again, _ = Mix(3, mixup=1.0, cutmix=0.0, seed=0)(indices, inputs, labels)
    assert torch.equal(again, mixed)
    other, _ = Mix(3, mixup=1.0, cutmix=0.0, seed=0)([SampleIndex(1, i) for i in range(4)], inputs, labels)
    assert not torch.equal(other, mixed)


def test_mixup_mixes_views_with_those_of_another_sample():
    labels = torch.arange(3).repeat_interleave(2)  # two views of each of three samples, side by side
    inputs = torch.rand(6, 3, 2, 8, 8)
    indices = [SampleIndex(0, i) for i in range(3)]
    mixed, targets = Mix(3, mixup=1.0, cutmix=0.0, seed=0)(indices, inputs, labels)
    weight = targets[2, 1].item()
    assert 0 < weight < 1
    torch.testing.assert_close(
        targets[2:], weight * torch.eye(3)[labels][2:] + (1 - weight) * torch.eye(3)[labels][:-2]
    )
    torch.testing.assert_close(mixed[2:], weight * inputs[2:] + (1 - weight) * inputs[:-2])
    torch.testing.assert_close(mixed[:2], weight * inputs[:2] + (1 - weight) * inputs[[5, 4]])


@pytest.mark.parametrize("shape", [(2, 3, 16, 16), (2, 3, 5, 16, 16)])
def test_cutmix_pastes_a_rectangle_through_all_frames_and_shares_the_target_by_area(shape):
    inputs = torch.stack([torch.zeros(shape[1:]), torch.ones(shape[1:])])
    mixed, targets = Mix(2, mixup=0.0, cutmix=1.0, seed=3)(
        [SampleIndex(0, 0), SampleIndex(0, 1)], inputs, torch.tensor([0, 1])
    )
    assert mixed.unique().tolist() == [0.0, 1.0]
    assert mixed[0].mean().item() == pytest.approx(targets[0, 1].item())
    assert 0 < targets[0, 1] < 1
    if len(shape) == 5:
        assert torch.equal(mixed[0], mixed[0][:, :1].expand_as(mixed[0]))
