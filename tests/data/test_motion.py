import hashlib

import numpy as np
import pytest
import torch
from torchvision.transforms.v2.functional import rotate

from cbam3d.data.motion import _TRAVEL, CLASSES, NUM_FRAMES, SIZE, _pose, draw, render, render_video
from cbam3d.video import probe_video


def digests(root):
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in root.rglob("*.*")}


def test_rendering_is_deterministic_and_can_be_completed(tmp_path):
    assert render(tmp_path / "a", num_groups=2) == 16
    render(tmp_path / "b", num_groups=2)
    files = digests(tmp_path / "a")
    assert files == digests(tmp_path / "b")
    assert len(files) == 16
    assert {name.split(".")[-1] for name in files} == {"avi", "mp4"}
    next((tmp_path / "b").rglob("*.avi")).unlink()
    render(tmp_path / "b", num_groups=2)
    assert files == digests(tmp_path / "b")
    for path in (tmp_path / "a").rglob("*.*"):
        info = probe_video(path)
        assert (info.num_frames, info.width, info.height, info.problem) == (NUM_FRAMES, SIZE, SIZE, "")


@pytest.mark.parametrize("label", CLASSES)
def test_the_thing_moves_as_the_class_says(label):
    """Measured on the mask of the thing, which knows nothing of poses."""
    for group in range(1, 6):
        frames, mask = render_video(label, 0, group)
        assert frames.shape == (NUM_FRAMES, SIZE, SIZE, 3)
        rows, columns = np.nonzero(mask[0])[0].mean(), np.nonzero(mask[0])[1].mean()
        last_rows, last_columns = np.nonzero(mask[-1])[0].mean(), np.nonzero(mask[-1])[1].mean()
        growth = mask[-1].sum() / mask[0].sum()
        if label == "move_left":
            assert last_columns < columns - 5
        elif label == "move_right":
            assert last_columns > columns + 5
        elif label == "move_up":
            assert last_rows < rows - 5
        elif label == "move_down":
            assert last_rows > rows + 5
        elif label == "zoom_in":
            assert growth > 1.3
        elif label == "zoom_out":
            assert growth < 1 / 1.3
        else:
            assert abs(last_rows - rows) < 5
            assert abs(last_columns - columns) < 5


def test_rotation_has_the_direction_of_the_name():
    """What is drawn at a greater angle is the same turned clockwise."""
    angles = _pose("rotate_clockwise", np.random.default_rng(0))[:, 3]
    assert (np.diff(angles) > 0).all()
    degrees = 20
    for seed in range(4):
        poses = np.zeros((2, 4))
        poses[1, 3] = np.deg2rad(degrees)
        _, masks = draw(np.random.default_rng(seed), poses, np.zeros((2, 2)))
        still, turned = torch.from_numpy(masks)[:, None]
        shared = {
            direction: (rotate(still.float(), direction * degrees) > 0.5).eq(turned).float().mean()
            for direction in (1, -1)  # counter-clockwise, clockwise
        }
        assert shared[-1] > 0.97
        assert shared[-1] > shared[1]


def test_a_random_frame_tells_nothing_of_the_class():
    """The pose at a random moment has the same mean and spread in every class, in each quantity."""
    poses = {}
    for label in CLASSES:
        rng = np.random.default_rng(0)
        poses[label] = np.array([_pose(label, rng)[rng.integers(NUM_FRAMES)] for _ in range(4000)])
    means = np.array([p.mean(0) for p in poses.values()])
    spreads = np.array([p.std(0) for p in poses.values()])
    scale = spreads.mean(0)
    assert (np.ptp(means, axis=0) / scale < 0.12).all()  # standard error of a mean: 1/√4000 = 0.016
    assert (np.ptp(spreads, axis=0) / scale < 0.06).all()


def test_a_class_is_its_reverse_played_backwards():
    """Drawn from the same numbers, the path of a class is the path of its reverse, turned around in time."""
    for forwards, backwards in (("move_left", "move_right"), ("zoom_out", "zoom_in")):
        there = _pose(forwards, np.random.default_rng(3))
        back = _pose(backwards, np.random.default_rng(3))
        np.testing.assert_allclose(there, back[::-1], atol=1e-12)


def test_only_one_quantity_moves_and_far_enough():
    for label, (moving, direction) in CLASSES.items():
        travel = np.ptp(_pose(label, np.random.default_rng(1)), axis=0)
        assert (np.delete(travel, moving) == 0).all()
        assert _TRAVEL[0][moving] <= travel[moving] <= _TRAVEL[1][moving]
        steps = np.diff(_pose(label, np.random.default_rng(1))[:, moving])
        assert (np.sign(steps) == direction).all()
