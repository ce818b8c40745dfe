import pickle

import av
import numpy as np
import pytest
import torch
from torch.nn import functional as F

from cbam3d.data import VideoError, probe_video, read_clip
from cbam3d.data.encode import write_video
from tests.conftest import read_numbers

# Codecs and containers in which frames are reordered (B-frames), referenced far away (long GOP), or neither.
FILES = [
    ("h264_b_frames.mp4", "libx264", {"bf": "3", "g": "250"}),
    ("h264_open_gop.mkv", "libx264", {"bf": "3", "g": "12", "x264-params": "open-gop=1"}),
    ("mpeg4_b_frames.avi", "mpeg4", {"bf": "2", "g": "300"}),
    ("mpeg4.avi", "mpeg4", {"g": "12"}),
    ("mjpeg.avi", "mjpeg", {"pix_fmt": "yuvj420p"}),
    ("vp9.webm", "libvpx-vp9", {"g": "30"}),
]


@pytest.mark.parametrize(("name", "codec", "options"), FILES)
def test_frames_come_in_presentation_order(make_video, name, codec, options):
    path = make_video(name, 40, codec, **options)
    assert probe_video(path).num_frames == 40
    assert read_numbers(read_clip(path, range(40))) == list(range(40))
    assert read_numbers(read_clip(path, [39, 0, 17, 17, 5])) == [39, 0, 17, 17, 5]
    assert read_numbers(read_clip(path, [3, 30], size=(24, 32))) == [3, 30]


def test_lossless_frames_come_back_equal(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (6, 30, 46, 3), dtype=np.uint8)
    path = tmp_path / "lossless.mkv"
    write_video(path, frames, 10, "ffv1", pix_fmt="bgr0")
    clip = read_clip(path, [4, 1])
    assert clip.shape == (3, 2, 30, 46)
    np.testing.assert_array_equal(clip.permute(1, 2, 3, 0).numpy(), frames[[4, 1]])


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


def test_probe_tells_size_rate_and_length(make_video):
    info = probe_video(make_video("v.mp4", 50))
    assert (info.num_frames, info.width, info.height, info.fps, info.problem) == (50, 64, 48, 25.0, "")
    assert info.duration_seconds == pytest.approx(2.0)


def broken_files(tmp_path, make_video):
    good = make_video("good.mp4", 60).read_bytes()
    empty, garbage, header = tmp_path / "empty.mp4", tmp_path / "garbage.mp4", tmp_path / "header.mp4"
    empty.write_bytes(b"")
    garbage.write_bytes(np.random.default_rng(0).bytes(5000))
    header.write_bytes(good[:40])
    audio = tmp_path / "audio.mp4"
    with av.open(str(audio), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return {
        tmp_path / "missing.mp4": "no such file",
        empty: "empty file",
        garbage: "unreadable",
        header: "unreadable",
        audio: "no video stream",
    }


def test_bad_files_have_a_reason_each(tmp_path, make_video):
    for path, reason in broken_files(tmp_path, make_video).items():
        assert probe_video(path).problem.startswith(reason)
        assert probe_video(path).num_frames == 0
        with pytest.raises(VideoError, match=reason) as error:
            read_clip(path, [0])
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)
        assert str(pickle.loads(pickle.dumps(error.value))) == str(error.value)  # out of a loader's worker


def test_a_truncated_file_gives_its_readable_frames(tmp_path, make_video):
    whole = make_video("whole.avi", 100, "mpeg4", g="10").read_bytes()
    path = tmp_path / "cut.avi"
    path.write_bytes(whole[: int(0.7 * len(whole))])
    info = probe_video(path)
    assert 20 < info.num_frames < 80
    assert read_numbers(read_clip(path, [0, 10, 20])) == [0, 10, 20]
    with pytest.raises(VideoError, match=f"frame 99 asked for, {info.num_frames} readable frames"):
        read_clip(path, [0, 99])


def test_asking_for_nothing_is_refused(make_video):
    path = make_video()
    for frames in ([], [-1]):
        with pytest.raises(ValueError, match="frames must be numbers from 0"):
            read_clip(path, frames)


def test_real_files_equal_a_sequential_decode(shared_data):
    """UCF101's originals have B-frames and timestamps out of order; the order of output is the order shown."""
    for path in sorted((shared_data / "ucf101").glob("*.avi")):
        with av.open(str(path)) as container:
            frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
        info = probe_video(path)
        assert (info.num_frames, info.problem) == (len(frames), "")
        clip = read_clip(path, range(len(frames)))
        np.testing.assert_array_equal(clip.permute(1, 2, 3, 0).numpy(), np.stack(frames))


def test_odd_files_are_read_or_named(shared_data):
    for path in sorted((shared_data / "odd").iterdir()):
        info = probe_video(path)
        assert info.num_frames > 0, path
        clip = read_clip(path, [0, info.num_frames - 1])
        assert clip.shape == (3, 2, info.height, info.width)
        assert bool(info.problem) == ("corrupted" in path.name)
