import av
import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from cbam3d.video import probe_video, read_clip
from cbam3d.video.encode import write_video
from tests.conftest import ffmpeg


def test_scaling_is_antialiased(tmp_path):
    noise = torch.from_numpy(np.random.default_rng(0).random((2, 3, 12, 16))).float()
    frames = F.interpolate(noise, size=(96, 128), mode="bicubic").clamp(0, 1) * 255
    write_video(tmp_path / "v.mkv", frames.permute(0, 2, 3, 1).to(torch.uint8).numpy(), 10, "ffv1", pix_fmt="bgr0")
    clip = read_clip(tmp_path / "v.mkv", [0, 1], size=(40, 50)).float()
    expected = F.interpolate(frames.floor(), size=(40, 50), mode="bilinear", antialias=True).permute(1, 0, 2, 3)
    assert (clip - expected).abs().mean() < 1.0  # of 255


@pytest.mark.parametrize("width", [62, 64, 66, 72, 84])
def test_the_last_columns_are_those_of_the_picture(tmp_path, width):
    """FFmpeg's quick conversion to planar RGB leaves columns unwritten where the width is no multiple of 16."""
    frames = np.full((3, 32, width, 3), 200, np.uint8)
    write_video(tmp_path / "v.mp4", frames, 10)
    for _ in range(3):
        clip = read_clip(tmp_path / "v.mp4", [0, 1, 2])
        assert (clip.int() - 200).abs().max() <= 3


def test_rotation_metadata_turns_the_picture_upright(tmp_path, shared_data):
    """The oracle is FFmpeg's own rotation, stored as the mean colours of the four quarters of the first frame."""
    path = shared_data / "odd" / "decord_rotated90.mov"
    with av.open(str(path)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == -90  # clockwise
        lying = torch.from_numpy(frame.to_ndarray(format="rgb24")).permute(2, 0, 1)
    upright = read_clip(path, [0])[:, 0]
    assert upright.shape == (3, 568, 320)
    assert probe_video(path).width == 320
    # Turned clockwise, the lower left corner comes to the upper left.
    clockwise = lying.transpose(1, 2).flip(2).float()
    assert (upright.float() - clockwise).abs().mean() < 3
    assert read_clip(path, [0], size=(142, 80)).shape == (3, 1, 142, 80)


@pytest.mark.parametrize(
    ("degrees", "turns"), [(30, 0), (45, 0), (60, 1), (90, 1), (135, 2), (200, 2), (-60, 3), (-90, 3)]
)
def test_a_rotation_between_quarter_turns_is_the_nearest_one(tmp_path, make_video, degrees, turns):
    make_video("lying.mp4", 3)
    ffmpeg(tmp_path, f"-display_rotation {degrees} -i lying.mp4 -c copy v.mp4")
    lying, info = read_clip(tmp_path / "lying.mp4", [1]), probe_video(tmp_path / "v.mp4")
    assert info.problem == ""
    assert (info.height, info.width) == ((64, 48) if turns % 2 else (48, 64))
    assert torch.equal(read_clip(tmp_path / "v.mp4", [1]), torch.rot90(lying, turns, (2, 3)))
    assert read_clip(tmp_path / "v.mp4", [1], size=(20, 30)).shape == (3, 1, 20, 30)


@pytest.mark.parametrize("mirrored", ["", "-display_hflip", "-display_vflip"])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_the_display_matrix_is_applied_as_by_ffmpeg(tmp_path, make_video, degrees, mirrored):
    make_video("lying.mp4", 2)
    ffmpeg(tmp_path, f"-display_rotation {degrees} {mirrored} -i lying.mp4 -c copy v.mp4")
    ffmpeg(tmp_path, "-i v.mp4 -frames:v 1 v.png")
    with Image.open(tmp_path / "v.png") as picture:
        expected = torch.from_numpy(np.array(picture.convert("RGB"))).permute(2, 0, 1).float()
    clip = read_clip(tmp_path / "v.mp4", [0])[:, 0].float()
    assert clip.shape == expected.shape
    assert (clip - expected).abs().mean() < 3


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
@pytest.mark.parametrize("turned", [None, *range(1, 9)])
def test_pictures_with_exif_are_read_upright(tmp_path, suffix, turned):
    rng = np.random.default_rng(0)
    picture = Image.fromarray(np.repeat(np.repeat(rng.integers(0, 256, (4, 6, 3), np.uint8), 16, 0), 16, 1))
    exif = picture.getexif()
    exif[0x10F] = "a camera"
    if turned is not None:
        exif[0x112] = turned
    (tmp_path / "video").mkdir()
    picture.save(tmp_path / f"video/1.{suffix}", exif=exif)
    with Image.open(tmp_path / f"video/1.{suffix}") as saved:
        upright = np.array(ImageOps.exif_transpose(saved).convert("RGB")).transpose(2, 0, 1)
    found = read_clip(tmp_path / "video", [0])[:, 0].numpy()
    assert found.shape == upright.shape
    assert np.abs(found.astype(int) - upright).mean() < 8
