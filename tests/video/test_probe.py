from fractions import Fraction

import av
import numpy as np
import pytest

from cbam3d.errors import InputError
from cbam3d.video import probe_video
from cbam3d.video.decode import file_rate
from cbam3d.video.encode import write_video
from cbam3d.video.probe import Copies, measure_video
from cbam3d.video.stream import stream_frames
from cbam3d.video.timing import frames_between


def test_probe_tells_size_rate_and_length(make_video):
    info = probe_video(make_video("v.mp4", 50))
    assert (info.num_frames, info.width, info.height, info.fps, info.problem) == (50, 64, 48, 25.0, "")
    assert info.duration_seconds == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("suffix", "codec"), [("webm", "libvpx"), ("mkv", "libx264"), ("ts", "libx264"), ("flv", "libx264")]
)
def test_a_rate_that_the_container_does_not_tell_is_that_of_its_frames(tmp_path, suffix, codec):
    """As a browser records: FFmpeg takes the first frames for the whole, or milliseconds for frames."""
    path = tmp_path / f"v.{suffix}"
    times = np.cumsum(np.random.default_rng(0).uniform(0.02, 0.09, 60)).round(3)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libvpx" if suffix == "webm" else "libx264", rate=1000)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for i, time in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 4 * i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = round(1000 * time), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    mean = 59 / (times[-1] - times[0])
    info = probe_video(path)
    assert (info.num_frames, info.problem) == (60, "")
    assert info.fps == pytest.approx(mean, rel=1e-3)
    assert measure_video(path).fps == pytest.approx(mean, rel=1e-3)
    assert info.duration_seconds == pytest.approx(60 / mean, rel=1e-3)
    assert next(stream_frames(str(path))).fps == pytest.approx(mean, rel=1e-3)
    copies = Copies(tmp_path / "copies", short_side=32, gop=5)
    assert probe_video(path, copies=copies, name="v.avi").fps == pytest.approx(mean, rel=1e-3)
    assert probe_video(tmp_path / "copies" / "v.avi").fps == pytest.approx(mean, rel=1e-2)


def test_a_copy_that_cannot_be_written_stops_with_its_name(tmp_path, make_video):
    (tmp_path / "file").write_text("no folder")
    copies = Copies(tmp_path / "file", short_side=24, gop=5)
    with pytest.raises(InputError, match=r"file: cannot be used as a folder"):
        probe_video(make_video(), copies=copies, name="v.avi")


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [(240, 320, (128, 170)), (320, 240, (170, 128)), (720, 1280, (128, 228)), (101, 51, (100, 52))],
)
def test_a_copys_short_side_is_as_asked_and_never_larger_than_the_picture(tmp_path, height, width, expected):
    assert Copies(tmp_path, short_side=128, gop=12).size(height, width) == expected


@pytest.mark.parametrize("measure", [probe_video, measure_video])
def test_a_picture_that_scaling_would_blow_up_is_named(tmp_path, measure):
    write_video(tmp_path / "a.mp4", np.zeros((2, 16, 528, 3), np.uint8), 25, "mpeg4")
    info = measure(tmp_path / "a.mp4")
    assert (info.num_frames, info.problem) == (0, "528x16 pixels: one side is more than 32 times the other")


def test_a_long_file_is_given_up_in_time(make_video):
    info = probe_video(make_video(), timeout_seconds=1e-9)
    assert (info.num_frames, info.problem) == (0, "timeout (not read within 1e-09 seconds)")


def test_a_packed_avi_with_lost_packets_is_not_intact(tmp_path, shared_data):
    whole = (shared_data / "ucf101" / "v_ApplyEyeMakeup_g01_c01.avi").read_bytes()
    path = tmp_path / "damaged.avi"
    path.write_bytes(whole[:39946] + whole[41546:])
    info = probe_video(path)
    assert info.num_frames < 164
    assert info.problem
    assert not info.packets


@pytest.mark.parametrize("name", ["pause.mp4", "pause.mkv", "pause.ts"])
def test_a_pause_of_the_recording_leaves_the_frame_rate(tmp_path, name):
    """The times go on by an hour in the middle, as in recordings that were stopped."""
    path = tmp_path / name
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", 25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 25)
        for i in range(100):
            frame = av.VideoFrame.from_ndarray(np.full((48, 64, 3), 2 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = i + 25 * 3600 * (i >= 50), Fraction(1, 25)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    info = probe_video(path)
    assert (info.num_frames, info.problem) == (100, "")
    assert info.fps == pytest.approx(25, rel=0.01)
    assert measure_video(path).fps == pytest.approx(25, rel=0.01)
    assert file_rate(path) == pytest.approx(25, rel=0.01)
    assert frames_between(3600, 3700, 100, info.fps, info.times) == (50, 50)  # times are as they were
