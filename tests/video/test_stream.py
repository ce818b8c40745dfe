"""Frames with their times."""

import contextlib
import socket
import struct
import sys
import threading
from typing import Any, cast

import numpy as np
import pytest
import torch

from cbam3d.video.container import VideoError
from cbam3d.video.decode import read_clip
from cbam3d.video.encode import write_video
from cbam3d.video.probe import measure_video, probe_video
from cbam3d.video.stream import TimedFrame, is_stream, stream_frames, stream_windows
from tests.conftest import ffmpeg, numbered_frames, read_numbers


def test_every_frame_with_its_time(make_video):
    path = make_video(count=30)
    found = [(timed.seconds, timed.fps, timed.scaled(24)) for timed in stream_frames(str(path))]
    assert [seconds for seconds, _, _ in found] == pytest.approx([i / 25 for i in range(30)])
    assert {fps for _, fps, _ in found} == {25.0}
    pixels = torch.from_numpy(np.stack([one for _, _, one in found], 1))
    assert torch.equal(pixels, read_clip(path, range(30), (24, 32)))


def test_real_times_of_a_variable_rate(shared_data):
    times = [timed.seconds for timed in stream_frames(str(next((shared_data / "odd").glob("*vfr*"))))]
    assert times[0] == 0
    assert len(set(np.diff(times).round(3))) > 1
    assert (np.diff(times) > 0).all()


@pytest.mark.parametrize(("ending", "reason"), [("stalls", "timeout"), ("breaks", "unreadable")])
def test_a_stream_that_does_not_come_to_its_end_is_said(make_video, ending, reason):
    content = make_video("whole.ts", 60).read_bytes()
    header = f"HTTP/1.0 200 OK\r\nContent-Type: video/mp2t\r\nContent-Length: {len(content)}\r\n\r\n"
    kept = []

    def serve(server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = server.accept()
                client.recv(4096)
                client.sendall(header.encode() + content[: len(content) // 2])
                if ending == "breaks":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                    client.close()
                else:
                    kept.append(client)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=serve, args=[server], daemon=True)
        thread.start()
        with pytest.raises(VideoError, match=reason):
            list(stream_frames(f"http://127.0.0.1:{server.getsockname()[1]}/x.ts", timeout_seconds=2))
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    for client in kept:
        client.close()


def test_what_is_no_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_stream("0")
    (tmp_path / "0").touch()
    assert not is_stream("0")
    assert is_stream("rtsp://camera/1")
    assert not is_stream("clips/0")
    assert not is_stream("video.mp4")


def test_nothing_there_is_said(tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(VideoError, match=r"text\.mp4: unreadable"):
        next(stream_frames(str(tmp_path / "text.mp4")))
    with pytest.raises(VideoError, match="no such file"):
        next(stream_frames(str(tmp_path / "none.mp4")))
    monkeypatch.setattr(sys, "platform", "linux")
    with pytest.raises(VideoError, match="/dev/video77"):
        next(stream_frames("77"))
    monkeypatch.setattr(sys, "platform", "win32")
    with pytest.raises(VideoError, match="Linux and macOS"):
        next(stream_frames("0"))


def test_windows_of_a_container_that_rounds_times_to_milliseconds_are_whole(tmp_path):
    path = tmp_path / "a.webm"
    write_video(path, numbered_frames(96), 30, "libvpx-vp9")
    found = [*stream_windows(stream_frames(str(path)), 16 / 30, 16 / 30, lambda timed: timed.scaled(48))]
    numbers = [read_numbers(torch.from_numpy(np.stack(pixels, 1))) for *_, pixels in found]
    assert numbers == [list(range(16 * i, 16 * i + 16)) for i in range(6)]


@pytest.mark.parametrize("gap", [4.0, 4e6])  # seconds; years take no longer than a moment
def test_windows_begin_where_there_are_frames(gap):
    def at(seconds):
        return TimedFrame(cast(Any, None), seconds, 25.0, (8, 8))

    frames = [at(i / 25) for i in range(25)] + [at(gap + i / 25) for i in range(25)]
    found = list(stream_windows(frames, 0.5, 0.25, lambda timed: np.array(timed.seconds)))
    assert [start for start, *_ in found] == [0, 0.25, 0.5, 0.75, gap - 0.25, gap, gap + 0.25, gap + 0.5]
    _, end, fps, chosen = found[1]
    assert (end, fps) == (0.75, 25.0)
    assert [round(float(seconds) * 25) for seconds in chosen] == list(range(7, 19))  # 0.28 … 0.72
    (whole,) = stream_windows(frames[:10], 0.5, 0.25, lambda timed: np.array(timed.seconds))
    assert whole[:2] == (0, pytest.approx(0.4))
    assert len(whole[3]) == 10


def test_frames_that_follow_faster_than_the_mean_are_in_a_window():
    times = [0.0, 0.3, 0.6, 0.9, 0.92, 0.94, 0.96, 0.98, 1.2, 1.5, 1.8]
    frames = [TimedFrame(cast(Any, None), seconds, 11 / 1.9, (8, 8)) for seconds in times]
    found = [[float(x) for x in chosen] for *_, chosen in stream_windows(frames, 1, 1, lambda t: np.array(t.seconds))]
    assert found[0] == times[:8]


def test_time_goes_on_where_a_stream_begins_again(make_video, tmp_path):
    one = make_video("one.ts", 50)
    (tmp_path / "two.ts").write_bytes(one.read_bytes() * 2)
    frames = list(stream_frames(str(tmp_path / "two.ts")))
    assert [timed.seconds for timed in frames] == pytest.approx([i / 25 for i in range(100)])
    found = stream_windows(frames, 1, 1, lambda timed: timed.scaled(48))
    numbers = [read_numbers(torch.from_numpy(np.stack(pixels, 1))) for _, _, _, pixels in found]
    assert numbers == [[*range(25)], [*range(25, 50)]] * 2


@pytest.mark.parametrize(
    "codec", ["-c:v libx264 -bf 3 -f avi", "-c:v mpeg4 -bf 2 -f avi", "-c:v libx264 -bf 3 -f matroska"]
)
def test_times_in_the_order_of_coding_are_no_new_beginning(tmp_path, codec):
    ffmpeg(tmp_path, f"-f lavfi -i testsrc2=size=64x48:rate=25:duration=3 {codec} v")
    seconds = [timed.seconds for timed in stream_frames(str(tmp_path / "v"))]
    assert len(seconds) == 75
    assert seconds == sorted(seconds)
    assert seconds[-1] == pytest.approx(74 / 25, abs=1e-3)
    assert seconds == pytest.approx([i / 25 for i in range(75)], abs=1e-3)
    assert probe_video(tmp_path / "v").times == b""  # at a constant rate


def test_time_goes_on_through_short_recordings(make_video, tmp_path):
    one = make_video("one.ts", 10)
    (tmp_path / "four.ts").write_bytes(one.read_bytes() * 4)
    seconds = [timed.seconds for timed in stream_frames(str(tmp_path / "four.ts"))]
    assert seconds == pytest.approx([i / 25 for i in range(40)])
    assert probe_video(tmp_path / "four.ts").times == b""


@pytest.mark.parametrize("suffix", ["avi", "mkv", "wmv", "nut"])
def test_the_rate_of_uneven_frames_is_that_of_their_times(tmp_path, suffix):
    select = "select='lt(mod(n\\,25)\\,5)'"  # five frames of each second
    ffmpeg(
        tmp_path,
        f"-f lavfi -i testsrc2=size=64x48:rate=25:duration=8 -vf {select} -fps_mode vfr -c:v mpeg4 v.{suffix}",
    )
    for info in (probe_video(tmp_path / f"v.{suffix}"), measure_video(tmp_path / f"v.{suffix}")):
        assert info.num_frames == 40
        assert info.fps == pytest.approx(39 / (7 + 4 / 25), rel=0.05)
