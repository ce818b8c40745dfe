"""Predictions for files, folders, patterns and windows, as a user asks for them."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch

from cbam3d import load_run
from cbam3d.cli import main
from cbam3d.commands.predict import find_files
from cbam3d.runs.windows import predict_windows
from cbam3d.errors import InputError
from cbam3d.video import decode, probe
from cbam3d.video.decode import read_clip
from cbam3d.video.encode import write_video
from cbam3d.video.probe import probe_video
from tests.conftest import ffmpeg, numbered_frames, read_numbers


def test_a_folder_as_json_lines(tiny_run, capsys):
    videos = tiny_run.parent / "videos"
    assert main(["predict", str(tiny_run), str(videos), "--json", "--top", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == sorted(str(path) for path in videos.rglob("*.*"))
    classifier = load_run(tiny_run)
    for row in rows[:2]:
        assert [tuple(pair) for pair in row["classes"]] == classifier(row["path"], top=3)
        assert row["start_seconds"] is None


def test_a_table(tiny_run, capsys):
    (video, *_) = sorted((tiny_run.parent / "videos").rglob("*.*"))
    assert main(["predict", str(tiny_run), str(video), "--top", "2"]) == 0
    shown = capsys.readouterr().out
    (first, second) = load_run(tiny_run)(video, top=2)
    assert f"{first[0]}" in shown
    assert f"{first[1]:.1%}" in shown
    assert f"{second[1]:.1%}" in shown


def test_windows_see_their_own_frames_and_times(tiny_run, make_video, monkeypatch):
    """A video of 40 numbered frames at 25 frames a second, in windows of 0.4 s, 0.2 s apart."""
    path = make_video("numbers.mp4", 40)
    classifier = load_run(tiny_run)
    seen = []
    score = classifier.score

    def noting(views):
        seen.append([read_numbers(view) for view in views])
        return score(views)

    monkeypatch.setattr(classifier, "score", noting)
    found = list(predictions(classifier, path, 1, 0.4, 0.2))
    times = [(p.start_seconds, p.end_seconds) for p in found]
    assert times == [(pytest.approx(0.2 * i), pytest.approx(0.2 * i + 0.4)) for i in range(7)]
    for i, clips in enumerate(seen):
        frames = [frame for clip in clips for frame in clip]
        assert all(5 * i <= frame < 5 * i + 10 for frame in frames)
    (whole,) = predictions(classifier, path, 1, 60.0, 60.0)  # shorter than the window
    assert (whole.start_seconds, whole.end_seconds) == (0.0, pytest.approx(1.6))


def test_files_folders_and_patterns(tmp_path):
    for name in ("a/2.mp4", "a/1.avi", "a/notes.txt", "b.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(tmp_path / "b.mkv"), str(tmp_path / "a"), str(tmp_path / "*.mkv")]
    assert [path.name for path in find_files(names, images=False)] == ["b.mkv", "1.avi", "2.mp4"]
    with pytest.raises(InputError, match="nowhere: no video there"):
        find_files([str(tmp_path / "nowhere")], images=False)


def test_what_cannot_be_read_does_not_stop_the_others(tiny_run, tmp_path, capsys):
    good = next((tiny_run.parent / "videos").rglob("*.*"))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert main(["predict", str(tiny_run), str(tmp_path / "bad.mp4"), str(good), "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["path"] == str(good)
    assert "1 file cannot be read, the first: " in shown.err
    assert shown.err.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "--window must be above 0, got 0.0"),
        (["--step", "1"], "--step goes with --window"),
        (["--top", "0"], "--top must be above 0, got 0"),
    ],
)
def test_mistakes_are_one_line(tiny_run, capsys, arguments, message):
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos"), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture
def served(tmp_path):
    """The address of tmp_path's files."""
    handler = type("Quiet", (SimpleHTTPRequestHandler,), {"log_message": lambda *_: None})
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(handler, directory=str(tmp_path)))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_stream_gives_what_the_file_gives(tiny_run, make_video, served, capsys):
    path = make_video("numbers.ts", 40)
    assert main(["predict", str(tiny_run), f"{served}/numbers.ts", "--window", "0.4", "--json"]) == 0
    streamed = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert main(["predict", str(tiny_run), str(path), "--window", "0.4", "--json"]) == 0
    read = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(read) == 4
    assert [row | {"path": ""} for row in streamed] == [row | {"path": ""} for row in read]
    assert main(["predict", str(tiny_run), f"{served}/numbers.ts"]) == 0  # shorter than the window of streams
    assert capsys.readouterr().out.startswith("0.00 … 1.60 s: ")


@pytest.mark.parametrize("window", [None, 0.4])
def test_a_copy_shows_the_classes(tiny_run, make_video, tmp_path, window):
    path = make_video("numbers.mp4", 40)
    found = list(predictions(load_run(tiny_run), path, 3, window, window, tmp_path / "copy.mp4"))
    assert len(found) == (1 if window is None else 4)
    assert probe_video(tmp_path / "copy.mp4").num_frames == 40
    before, after = (read_clip(file, range(40)).float() for file in (path, tmp_path / "copy.mp4"))
    assert (before - after)[:, :, :24].abs().mean() < 8  # the upper half is as it was
    assert after[:, :, -16:].mean() < 0.8 * before[:, :, -16:].mean()  # the text lies on a dark ground
    assert after[:, :, -16:].amax() > 200


def test_a_copy_that_is_broken_off_is_whole_up_to_there(tiny_run, make_video, tmp_path):
    found = predictions(load_run(tiny_run), make_video("n.mp4", 40), 1, 0.4, 0.4, tmp_path / "copy.mp4")
    next(found)
    found.close()
    assert 10 <= probe_video(tmp_path / "copy.mp4").num_frames < 40
    assert not list(tmp_path.glob(".*"))


def test_streams_and_cameras_that_are_not_there_are_one_line(tiny_run, served, capsys, tmp_path):
    for source in (f"{served}/none.ts", "77", "http://127.0.0.1:9/x.mp4"):
        assert main(["predict", str(tiny_run), source]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "77" in error or "127.0.0.1" in error
    assert not list(tmp_path.glob("*.mp4"))


def test_an_annotated_copy_overwrites_no_source(tiny_run, make_video, capsys):
    path, other = make_video("a/v.mp4", 20), make_video("b/v.mp4", 30)
    before = other.read_bytes()
    assert main(["predict", str(tiny_run), str(path), str(other), "--annotate", str(other.parent)]) == 2
    assert "would overwrite" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert main(["predict", str(tiny_run), str(path), str(other), "--annotate", str(path.parents[1] / "out")]) == 0
    counts = {file.name: probe_video(file).num_frames for file in (path.parents[1] / "out").iterdir()}
    assert counts == {"v.mp4": 20, "v-2.mp4": 30}
    assert main(["predict", str(tiny_run), str(path), "--annotate", str(path)]) == 2
    assert "cannot be used as a folder" in capsys.readouterr().err


def test_a_video_that_changes_its_size_keeps_the_first(tiny_run, make_video, tmp_path):
    parts = [make_video("small.h264", 20, bf="0"), tmp_path / "large.h264"]
    write_video(parts[1], numbered_frames(20, 96, 128), 25, "libx264", bf="0")
    (tmp_path / "joined.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(predictions(load_run(tiny_run), tmp_path / "joined.h264", 1, 0.5, 0.5, tmp_path / "copy.mp4"))
    assert len(found) == 3
    assert probe_video(tmp_path / "copy.mp4").height == 48


@pytest.mark.parametrize("seconds", ["1e-7", "nan", "-1", "inf"])
def test_windows_are_times(tiny_run, seconds, capsys):
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos"), "--window", seconds]) == 2
    assert "--window must be above 0" in capsys.readouterr().err
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos"), "--device", "tpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_a_film_is_not_decoded_to_classify_one_clip(tiny_run, tmp_path, monkeypatch):
    write_video(tmp_path / "film.mp4", numbered_frames(250), 25)
    classifier, decoded = load_run(tiny_run), []
    monkeypatch.setattr(probe, "probe_video", None)
    put = decode._Clip.put
    monkeypatch.setattr(
        decode._Clip, "put", lambda self, number, frame: decoded.append(number) or put(self, number, frame)
    )
    info = classifier.probe(tmp_path / "film.mp4")
    expected = probe_video(tmp_path / "film.mp4")
    for name in ("num_frames", "fps", "width", "height", "duration_seconds", "problem", "num_bytes", "changed_ns"):
        assert getattr(info, name) == getattr(expected, name), name
    classifier(tmp_path / "film.mp4")
    assert 0 < len(decoded) < 60


@pytest.mark.parametrize("name", ["v.avi", "v.ts", "cut.mp4", "v.mpg"])
def test_where_packets_do_not_tell_the_whole_file_is_read(tmp_path, name):
    path = tmp_path / name
    codec = {"avi": "mpeg4", "mpg": "mpeg2video"}.get(name[-3:], "libx264")
    write_video(path, numbered_frames(40), 25, codec)
    if name == "cut.mp4":
        ffmpeg(tmp_path, "-i cut.mp4 -c copy -movflags +faststart whole.mp4")
        whole = (tmp_path / "whole.mp4").read_bytes()
        path.write_bytes(whole[: int(0.7 * len(whole))])
    mine, theirs = probe.measure_video(path), probe_video(path)
    assert mine.num_frames == theirs.num_frames > 10
    assert (mine.width, mine.height, mine.problem) == (64, 48, theirs.problem)


def test_a_step_is_refused_or_used(tiny_run, tmp_path):
    write_video(tmp_path / "v.mp4", numbered_frames(50), 25)
    classifier = load_run(tiny_run)
    with pytest.raises(ValueError, match="a step belongs to a window"):
        next(predictions(classifier, tmp_path / "v.mp4", 1, None, 1.0))
    parts = list(predictions(classifier, tmp_path / "v.mp4", 1, 1.0, None))
    assert [(part.start_seconds, part.end_seconds) for part in parts] == [(0.0, 1.0), (1.0, 2.0)]


def test_loading_a_run_leaves_the_random_numbers_as_they_are(tiny_run):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    load_run(tiny_run)
    assert torch.equal(torch.rand(3), expected)


def test_damage_that_packets_do_not_show_is_met_when_it_is_read(tiny_run, shared_data):
    """Its packets promise one frame more than can be decoded."""
    path = shared_data / "odd" / "decord_corrupted.mp4"
    assert probe.measure_video(path).num_frames > probe_video(path).num_frames
    assert len(load_run(tiny_run)(path, top=1)) == 1
