import numpy as np
import pytest

from cbam3d.errors import InputError
from cbam3d.video import probe_video
from cbam3d.video.encode import write_video
from cbam3d.video.probe import Copies, measure_video


def test_probe_tells_size_rate_and_length(make_video):
    info = probe_video(make_video("v.mp4", 50))
    assert (info.num_frames, info.width, info.height, info.fps, info.problem) == (50, 64, 48, 25.0, "")
    assert info.duration_seconds == pytest.approx(2.0)


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
