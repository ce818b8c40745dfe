import pytest

from cbam3d.video import probe_video
from tests.conftest import ffmpeg

SAID = {  # what tells that the end is missing
    "v.gif": "no GIF trailer",
    "v.mkv": "bytes are missing",
    "v.webm": "bytes are missing",
    "v.ogv": "no last Ogg page",
    "v.ts": "of 188 bytes",
    "v.m2ts": "of 192 bytes",
    "v.mxf": "seconds",
    "v.avi": "truncated packet",
    "v.mp4": "unreadable packet",
    "v.flv": "cut off (at ",
}
OPTIONS = {
    "v.webm": "-c:v libvpx-vp9 -deadline realtime -cpu-used 8",
    "v.mp4": "-movflags +faststart",
    "v.mxf": "-c:v mpeg2video",
    "v.gif": "",
}


@pytest.mark.parametrize("name", SAID)
def test_a_file_that_was_cut_off_says_so(tmp_path, make_video, name):
    make_video("source.mkv", 60)
    options = OPTIONS.get(name, "")
    ffmpeg(tmp_path, f"-i source.mkv {options} {name}")
    path = tmp_path / name
    whole = path.read_bytes()
    assert probe_video(path).problem == ""
    path.write_bytes(whole[: int(0.4 * len(whole)) // 188 * 188 + 100])
    info = probe_video(path)
    assert 5 < info.num_frames < 60
    assert SAID[name] in info.problem


def test_a_stream_without_an_announced_end_is_no_cut_off_file(tmp_path, make_video):
    make_video("source.mkv", 20)
    ffmpeg(tmp_path, "-i source.mkv -c copy -live 1 v.mkv")
    assert probe_video(tmp_path / "v.mkv").problem == ""
    whole = (tmp_path / "source.mkv").read_bytes()
    (tmp_path / "source.mkv").write_bytes(whole + b"more")
    assert probe_video(tmp_path / "source.mkv").problem == ""
