"""The data of a configuration, in a loop of one's own."""

import shutil
import time

import numpy as np
import psutil
import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from cbam3d import create_model, open_dataset
from cbam3d.data import read_clip
from cbam3d.engine.progress import ended
from cbam3d.errors import InputError
from tests.tiny import TINY


@pytest.fixture
def values(tiny_run):
    return {**TINY, "data.root": str(tiny_run.parent / "videos"), "eval.num_clips": 1, "data.short_videos": "pad"}


def test_an_item_is_the_normalised_clip_of_its_file(values):
    data = open_dataset({**values, "data.stride": 1})
    assert (len(data.train), len(data.test), data.val.classes) == (8, 8, data.train.classes)
    clip, label = data.test[3]
    assert data.test.name(3).startswith(data.test.classes[label])
    root, name = values["data.root"], data.test.name(3)
    pixels = read_clip(f"{root}/{name}", range(10, 14), size=(32, 32)).float() / 255  # the middle of 24 frames
    mean, std = (torch.tensor(one).view(3, 1, 1, 1) for one in ((0.432, 0.395, 0.376), (0.228, 0.221, 0.217)))
    torch.testing.assert_close(clip, (pixels - mean) / std)
    with pytest.raises(IndexError, match="item 8 of 8"):
        data.test[8]


def test_several_views_of_an_item_lie_side_by_side(values):
    clips, _ = open_dataset({**values, "eval.num_clips": 3}).test[0]
    assert clips.shape == (3, 3, 4, 32, 32)


def test_held_out_videos_are_mirrored_where_training_is(values):
    folder = {**values, "data.recipe": "folder", "eval.flip": None}
    (as_is, mirrored), _ = open_dataset({**folder, "augment.flip": True}).test[0]
    assert torch.equal(mirrored, as_is.flip(-1))
    for flip in (False, None):
        clip, _ = open_dataset({**folder, "augment.flip": flip}).test[0]
        assert clip.shape == (3, 4, 32, 32)


def test_a_recipe_decides_where_nothing_is_said_of_mirroring(values, tmp_path):
    for keeps, shape in (("true", (2, 3, 4, 32, 32)), ("false", (3, 4, 32, 32))):
        text = f"kind: video\npatterns: ['{{label}}/{{name}}']\nflip_keeps_label: {keeps}\n"
        (tmp_path / "recipe.yaml").write_text(text)
        clips, _ = open_dataset({**values, "data.recipe": str(tmp_path), "eval.flip": None, "augment.flip": None}).test[
            0
        ]
        assert clips.shape == shape


def test_batches_hold_every_item_once_an_epoch_in_a_new_order(values):
    train = open_dataset({**values, "train.batch_size": 4}).train
    epochs = [[name for batch in train.batches(epoch) for name in batch.names] for epoch in (0, 1, 0)]
    assert sorted(epochs[0]) == sorted(epochs[1]) == sorted(train.name(i) for i in range(8))
    assert epochs[0] != epochs[1]
    assert epochs[0] == epochs[2]
    first, again = (next(train.batches(3)) for _ in range(2))
    assert torch.equal(first.inputs, again.inputs)
    assert first.inputs.shape == (4, 3, 4, 32, 32)


def test_a_loop_of_ones_own_learns(values):
    train = open_dataset({**values, "augment.crop_scale": None}).train
    torch.manual_seed(0)
    model = create_model("resnet10", len(train.classes), width=8)
    optimizer = torch.optim.AdamW(model.parameters(), 0.004)
    losses = []
    for epoch in range(12):
        for batch in train.batches(epoch):
            loss = F.cross_entropy(model(batch.inputs), batch.targets)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            losses.append(loss.item())
    assert np.mean(losses[-3:]) < np.mean(losses[:3]) - 0.3


def test_pytorchs_own_loader_takes_the_items(values):
    test = open_dataset(values).test
    inputs, labels = next(iter(DataLoader(test, batch_size=3)))
    assert inputs.shape == (3, 3, 4, 32, 32)
    assert labels.tolist() == [test[i][1] for i in range(3)]


def test_a_file_that_cannot_be_read_is_named(values, tmp_path):
    import shutil

    shutil.copytree(values["data.root"], tmp_path / "videos")
    test = open_dataset({**values, "data.root": str(tmp_path / "videos")}).test
    (tmp_path / "videos" / test.name(0)).write_bytes(b"")
    with pytest.raises(InputError, match=f"{test.name(0)}: empty file"):
        test[0]


def test_an_exception_that_is_kept_keeps_no_worker(values):
    """As a notebook keeps the last one."""
    train = open_dataset({**values, "data.num_workers": 1, "train.batch_size": 4}).train
    before = len(psutil.Process().children())

    def fail():
        with ended(train.batches(0)) as batches:
            for _ in batches:
                assert len(psutil.Process().children()) > before
                raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError) as kept:
        fail()
    assert kept.traceback
    gone = time.monotonic() + 10
    while len(psutil.Process().children()) > before and time.monotonic() < gone:
        time.sleep(0.05)
    assert len(psutil.Process().children()) == before
    assert len(list(train.batches(1))) == len(train.loader)  # by others


def test_what_is_not_in_the_splits_is_said(values, tmp_path, caplog):
    shutil.copytree(values["data.root"], tmp_path / "videos")
    (tmp_path / "videos/move_down/broken_g009.avi").write_bytes(b"broken")
    data = open_dataset({**values, "data.root": str(tmp_path / "videos")})
    assert "skipped move_down/broken_g009.avi: unreadable" in caplog.text
    assert "no val split beside test: val is test" in caplog.text
    assert repr(data.test) == "Split(8 items of 8 classes, 1 batches)"


def test_frames_of_held_out_clips_can_be_put_in_another_order(values):
    """What a network loses shows whether it uses the order of frames."""
    moved = 0
    for item in range(8):
        natural, shuffled, again, repeated = (
            open_dataset({**values, "data.stride": 1, "eval.frame_order": order}).test[item][0]
            for order in ("natural", "shuffled", "shuffled", "repeated")
        )
        frames = natural.unbind(1)
        order = [next(i for i, frame in enumerate(frames) if torch.equal(frame, one)) for one in shuffled.unbind(1)]
        assert sorted(order) == [0, 1, 2, 3]
        moved += order != [0, 1, 2, 3]
        assert torch.equal(shuffled, again)
        assert torch.equal(repeated, natural[:, 2:3].expand_as(natural))
    assert moved > 4


def test_passes_do_not_share_their_epoch(values):
    train, *_ = open_dataset(values)
    first, second = train.batches(0), train.batches(1)  # neither has begun
    names = [[name for batch in one for name in batch.names] for one in (first, second)]
    assert names == [[name for batch in train.batches(epoch) for name in batch.names] for epoch in (0, 1)]
    begun, other = train.batches(0), train.batches(1)
    assert next(begun).names != next(other).names
    with pytest.raises(RuntimeError, match="another pass through these items has begun"):
        next(begun)
    assert [name for batch in train.batches(1) for name in batch.names] == names[1]


def test_items_count_from_the_end(values):
    train, *_ = open_dataset(values)
    assert torch.equal(train[-1][0], train[len(train) - 1][0])
    with pytest.raises(IndexError):
        train[-len(train) - 1]
