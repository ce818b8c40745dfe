import os

import numpy as np
import pytest
import torch
from PIL import Image

from cbam3d.video import VideoError, probe_video, read_clip
from cbam3d.video.frames import list_frames
from cbam3d.video.probe import measure_video

FORMATS = {"jpg": {"quality": 95, "subsampling": 0}, "png": {}, "webp": {"lossless": True}, "bmp": {}}


def picture(number: int, size=(40, 30)) -> Image.Image:
    """Smooth, and another for each number."""
    pixels = np.random.default_rng(number).integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC)


def write(folder, numbers, suffix="png", start="img_", digits=5):
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        picture(number).save(folder / f"{start}{number:0{digits}d}.{suffix}", **FORMATS[suffix.lower()])
    return folder


def pixels(number: int) -> torch.Tensor:
    return torch.from_numpy(np.asarray(picture(number)).transpose(2, 0, 1).copy())


@pytest.mark.parametrize(("suffix", "limit"), [("jpg", 8), ("png", 0), ("webp", 0), ("bmp", 0)])
def test_frames_are_the_images_in_order(tmp_path, suffix, limit):
    folder = write(tmp_path / "clip", range(3, 15), suffix)
    clip = read_clip(folder, [0, 11, 5, 5])
    assert clip.shape == (3, 4, 30, 40)
    for place, number in enumerate((3, 14, 8, 8)):
        assert (clip[:, place].int() - pixels(number).int()).abs().max() <= limit
    assert read_clip(folder, [2], size=(15, 20)).shape == (3, 1, 15, 20)
    info = probe_video(folder)
    assert (info.num_frames, info.width, info.height, info.fps, info.problem) == (12, 40, 30, 0.0, "")
    assert probe_video(folder, fps=12.0).duration_seconds == 1.0
    assert measure_video(folder).num_frames == 12


def test_images_that_are_written_anew_are_another_video(tmp_path):
    folder = write(tmp_path / "clip", range(4))
    before = probe_video(folder)
    assert before.num_bytes == sum(file.stat().st_size for file in folder.iterdir())
    with open(folder / "img_00002.png", "r+b") as file:  # in place: the folder's own time stays
        file.write(b"\x89PNG")
    os.utime(folder / "img_00002.png", ns=(before.changed_ns + 1, before.changed_ns + 1))
    assert probe_video(folder).changed_ns == before.changed_ns + 1


def test_the_number_counts_rather_than_the_name(tmp_path):
    folder = write(tmp_path / "clip", range(8, 12), digits=1)
    names, problem = list_frames(folder)
    assert [name.rpartition("_")[2] for name in names] == ["8.png", "9.png", "10.png", "11.png"]
    assert problem == ""


def test_gaps_are_named_and_what_is_there_is_used(tmp_path):
    folder = write(tmp_path / "clip", [1, 2, 5, 6, 9])
    assert probe_video(folder).problem == "4 missing frames, the first is 3"
    assert probe_video(folder).num_frames == 5
    assert torch.equal(read_clip(folder, [2])[:, 0], pixels(5))


def test_of_several_sequences_img_is_taken(tmp_path):
    folder = write(tmp_path / "clip", range(1, 4))
    write(folder, range(50, 60), start="flow_x_")
    (folder / "notes.txt").write_text("no frame")
    picture(0).save(folder / "poster.png")
    assert len(list_frames(folder)[0]) == 3
    other = write(write(tmp_path / "other", range(3), start="left_"), range(3), start="right_")
    assert probe_video(other).problem == r"several sequences of images: left_*, right_*"


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("img_00002.png", b"", "img_00002.png is no JPEG, PNG, WebP or BMP image"),
        ("img_00002.png", b"hello", "img_00002.png is no JPEG, PNG, WebP or BMP image"),
        ("img_00002.png", None, r"img_00002.png cannot be decoded \("),
        ("img_2.png", b"x", r"two images with one number: img_00002\.png and img_2\.png"),
    ],
)
def test_bad_images_are_named(tmp_path, name, content, reason):
    folder = write(tmp_path / "clip", range(1, 4))
    if content is None:
        content = (folder / name).read_bytes()[:-200]
    (folder / name).write_bytes(content)
    with pytest.raises(VideoError, match=reason):
        read_clip(folder, [0, 1])
    assert probe_video(folder).num_frames == 0


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "bmp"])
def test_half_an_image_is_none(tmp_path, suffix):
    folder = write(tmp_path / "clip", range(1, 4), suffix)
    file = folder / f"img_00003.{suffix}"
    file.write_bytes(file.read_bytes()[: file.stat().st_size * 2 // 3])
    assert probe_video(folder).problem.startswith(f"img_00003.{suffix} cannot be decoded")


def test_what_is_no_sequence_has_a_reason(tmp_path):
    (tmp_path / "empty").mkdir()
    assert probe_video(tmp_path / "empty").problem == "no numbered image in this folder"
    folder = write(tmp_path / "clip", range(1, 4))
    with pytest.raises(VideoError, match="frame 3 asked for, 3 readable frames"):
        read_clip(folder, [3])
    picture(9).save(tmp_path / "secret.png")
    (folder / "img_00004.png").symlink_to(tmp_path / "secret.png")
    assert probe_video(folder).problem == "img_00004.png is a link that leads out of the folder"
