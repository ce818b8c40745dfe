import os
import time

import av
import numpy as np
import pytest

from cbam3d.video import VideoError, probe_video, read_clip
from cbam3d.video.container import Deadline, open_video, video_file


def test_time_is_over_when_it_is_over(make_video):
    deadline = Deadline("v.mp4", 0.05)
    deadline.check()
    time.sleep(0.06)
    with pytest.raises(VideoError, match=r"v\.mp4: timeout \(not read within 0\.05 seconds\)"):
        deadline.check()
    with pytest.raises(VideoError, match="timeout"):
        read_clip(make_video(), [0], timeout_seconds=1e-9)


def test_the_video_is_found_behind_a_sound_track_and_a_cover_picture(tmp_path):
    path = tmp_path / "v.mkv"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=8000)
        video = container.add_stream("libx264", rate=25)
        video.width = video.height = 32
        for i in range(5):
            grey = av.VideoFrame.from_ndarray(np.full((32, 32, 3), 40 * i, np.uint8), format="rgb24")
            container.mux(video.encode(grey))
            tone = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            tone.rate, tone.pts = 8000, 1024 * i
            container.mux(sound.encode(tone))
        container.mux(video.encode())
        container.mux(sound.encode())
    assert (read_clip(path, [3, 1]).float().mean((0, 2, 3)).tolist()) == pytest.approx([120, 40], abs=3)


def test_a_title_in_another_encoding_is_no_obstacle(tmp_path):
    path = tmp_path / "v.avi"
    with av.open(str(path), "w") as container:
        container.metadata["title"] = "caf@@"
        video = container.add_stream("mpeg4", rate=25)
        video.width = video.height = 32
        container.mux(video.encode(av.VideoFrame.from_ndarray(np.full((32, 32, 3), 90, np.uint8), format="rgb24")))
        container.mux(video.encode())
    content = path.read_bytes()
    assert content.count(b"caf@@") == 1
    path.write_bytes(content.replace(b"caf@@", "café!".encode("latin-1")))
    assert read_clip(path, [0]).float().mean().item() == pytest.approx(90, abs=2)
    assert probe_video(path).problem == ""


def test_the_header_is_trusted_where_it_describes_the_stream(make_video):
    for name, codec in (("v.mp4", "libx264"), ("v.mkv", "libx264"), ("v.avi", "mpeg4"), ("v.ts", "libx264")):
        path = make_video(name, 5, codec)
        deadline = Deadline(path, 10)
        with video_file(path, deadline) as file, open_video(file, deadline, trust_header=True) as (_, stream):
            assert (stream.codec_context.width, stream.codec_context.height) == (64, 48)
            assert (stream.codec_context.pix_fmt is None) == (name in ("v.mp4", "v.mkv"))


def test_a_nul_in_a_path_is_one_line():
    with pytest.raises(VideoError, match=r"unreadable \(embedded null byte\)"):
        read_clip("a\0b.mp4", [0])


def test_a_list_of_other_files_is_no_video(tmp_path, make_video):
    make_video("elsewhere/secret.mp4", 5)
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos/link.bin").symlink_to(tmp_path / "elsewhere/secret.mp4")
    (tmp_path / "videos/x.mp4").write_text("ffconcat version 1.0\nfile link.bin\n")
    with pytest.raises(VideoError, match=r"x\.mp4: (a list of files|unreadable)"):
        read_clip(tmp_path / "videos/x.mp4", [0])


def test_a_pipe_is_no_video(tmp_path):
    os.mkfifo(tmp_path / "x.mp4")
    with pytest.raises(VideoError, match=r"x\.mp4: unreadable \(not a file\)"):
        read_clip(tmp_path / "x.mp4", [0], timeout_seconds=5)
