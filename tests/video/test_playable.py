from fractions import Fraction

import av
import pytest

from cbam3d.video import read_clip
from cbam3d.video.container import VideoError
from cbam3d.video.encode import write_video
from cbam3d.video.playable import playable
from tests.conftest import ffmpeg, numbered_frames, read_numbers


def test_what_browsers_play_stays_and_other_files_are_copied(make_video, tmp_path):
    h264, target = make_video("a.mp4"), tmp_path / "copy.mp4"
    assert playable(h264, target) == h264
    assert not target.exists()
    for path in (make_video("b.avi", codec="mpeg4"), make_video("c.mkv")):
        assert playable(path, target) == target
        with av.open(target) as container:
            stream = container.streams.video[0]
            assert (stream.codec_context.name, stream.codec_context.pix_fmt) == ("h264", "yuv420p")
            assert (stream.width, stream.height, stream.average_rate) == (64, 48, 25)
        assert read_numbers(read_clip(target, [0, 17, 39], (48, 64))) == [0, 17, 39]
    bad = tmp_path / "bad.avi"
    bad.write_bytes(b"nonsense")
    with pytest.raises(VideoError):
        playable(bad, target)


def test_a_frame_an_hour_is_copied(tmp_path):
    write_video(tmp_path / "rare.avi", numbered_frames(2), Fraction(1, 3600), "mpeg4")
    with av.open(playable(tmp_path / "rare.avi", tmp_path / "copy.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 2


def test_a_copy_lasts_as_long_as_the_video(tmp_path):
    write_video(tmp_path / "slow.avi", numbered_frames(25), Fraction(25, 2), "mpeg4")
    with av.open(playable(tmp_path / "slow.avi", tmp_path / "copy.mp4")) as container:
        assert container.streams.video[0].average_rate == Fraction(25, 2)
        assert container.duration / 1e6 == pytest.approx(2.0, abs=0.01)


def test_a_copy_shows_each_frame_when_the_video_does(tmp_path):
    select = "select='lt(mod(n\\,25)\\,5)'"  # five frames of each second
    ffmpeg(tmp_path, f"-f lavfi -i testsrc2=size=64x48:rate=25:duration=4 -vf {select} -fps_mode vfr v.gif")
    with av.open(playable(tmp_path / "v.gif", tmp_path / "copy.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([second + i / 25 for second in range(4) for i in range(5)], abs=0.02)
    ffmpeg(tmp_path, "-f lavfi -i testsrc2=size=64x48:rate=25:duration=2 -c:v libx264 -bf 3 v.avi")
    with av.open(playable(tmp_path / "v.avi", tmp_path / "copy.mp4")) as container:
        times = [frame.time for frame in container.decode(video=0)]
    assert times == pytest.approx([i / 25 for i in range(50)], abs=1e-3)
