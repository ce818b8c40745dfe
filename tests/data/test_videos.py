import numpy as np
import pytest
import torch

from cbam3d.data.batch import SampleIndex, pack
from cbam3d.data.listing import list_videos
from cbam3d.data.recipe import Recipe
from cbam3d.data.sampling import random_clip
from cbam3d.data.scan import Reading, scan_videos
from cbam3d.data.videos import VideoDataset
from tests.conftest import read_numbers


@pytest.fixture
def folder(tmp_path, make_video):
    make_video("root/a/1.mp4", 40)
    make_video("root/b/2.avi", 40, "mpeg4")
    return tmp_path / "root"


def dataset(folder, clips, seed=0):
    listing = list_videos(folder, Recipe("folder", "video", ["{label}/{name}"]))
    manifest = scan_videos(listing, Reading(folder)).manifest
    return VideoDataset(folder, manifest, ["b", "a"], clips, short_side=24, seed=seed)


def test_an_item_is_the_clips_of_a_video(folder):
    data = dataset(folder, lambda frames, fps, rng: [[0, 2, 4], [9, 7, frames - 1]])
    assert len(data) == 2
    first, second = data.read(SampleIndex(0, 0)), data.read(SampleIndex(0, 1))
    assert (first.label, second.label) == (1, 0)  # classes in the order given
    assert [tuple(view.shape) for view in first.views] == [(3, 3, 24, 32)] * 2
    for sample in (first, second):
        assert [read_numbers(view) for view in sample.views] == [[0, 2, 4], [9, 7, 39]]


def test_randomness_is_a_function_of_seed_epoch_and_index(folder):
    def starts(seed):
        data = dataset(folder, lambda frames, fps, rng: [random_clip(frames, 4, 1, rng)], seed)
        return {(e, i): read_numbers(data.read(SampleIndex(e, i)).views[0])[0] for e in (1, 0) for i in (1, 0)}

    first = starts(0)
    assert first == starts(0)
    assert first != starts(1)
    assert len(set(first.values())) > 1


def test_a_video_that_went_bad_is_named_and_not_replaced(folder):
    data = dataset(folder, lambda frames, fps, rng: [[0, 1]])
    (folder / "a" / "1.mp4").write_bytes(b"")
    sample = data.read(SampleIndex(3, 0))
    assert sample.views == []
    assert sample.problem == ("a/1.mp4", "empty file")
    packed = pack([sample, data.read(SampleIndex(3, 1))])
    assert packed.indices == [SampleIndex(3, 1)]
    assert packed.labels.tolist() == [0]
    assert packed.problems == [("a/1.mp4", "empty file")]


def test_packing_keeps_clips_of_different_sizes():
    from cbam3d.data.batch import Sample

    shapes = [(3, 2, 4, 5), (3, 2, 6, 4), (3, 7, 8)]
    views = [
        torch.from_numpy(np.random.default_rng(i).integers(0, 256, s, dtype=np.uint8)) for i, s in enumerate(shapes)
    ]
    packed = pack([Sample(SampleIndex(0, 0), 1, views[:2]), Sample(SampleIndex(0, 1), 0, views[2:])])
    for (packed_view,), view in zip(packed.views_of_one_shape(), views, strict=True):
        assert torch.equal(packed_view, view)
    empty = pack([])
    assert not empty.indices
    assert len(empty.labels) == 0
