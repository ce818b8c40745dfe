"""`cbam3d predict`, as a user asks for it."""

import json
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import pytest

from cbam3d import load_run
from cbam3d.cli import main
from cbam3d.video.probe import probe_video


def test_a_folder_as_json_lines(tiny_run, capsys):
    videos = tiny_run.parent / "videos"
    assert main(["predict", str(tiny_run), str(videos), "--json", "--top", "3"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["path"] for row in rows] == sorted(str(path) for path in videos.rglob("*.*"))
    predictor = load_run(tiny_run)
    for row in rows[:2]:
        assert [tuple(pair) for pair in row["classes"]] == predictor(row["path"], top=3)
        assert row["start_seconds"] is None


def test_a_table(tiny_run, capsys):
    (video, *_) = sorted((tiny_run.parent / "videos").rglob("*.*"))
    assert main(["predict", str(tiny_run), str(video), "--top", "2"]) == 0
    shown = capsys.readouterr().out
    (first, second) = load_run(tiny_run)(video, top=2)
    assert f"{first[0]}" in shown
    assert f"{first[1]:.1%}" in shown
    assert f"{second[1]:.1%}" in shown


def test_a_line_for_each_file_of_a_folder(tiny_run, capsys):
    videos = tiny_run.parent / "videos"
    assert main(["predict", str(tiny_run), str(videos)]) == 0
    lines, predictor = capsys.readouterr().out.splitlines(), load_run(tiny_run)
    paths = sorted(str(path) for path in videos.rglob("*.*"))
    assert len(lines) == len(paths)
    for line, path in list(zip(lines, paths, strict=True))[:2]:
        (first, p), (second, q) = predictor(path, top=2)
        assert line == f"{path}: {first} {p:.1%}, {second} {q:.1%}"


def test_what_cannot_be_read_does_not_stop_the_others(tiny_run, tmp_path, capsys):
    good = next((tiny_run.parent / "videos").rglob("*.*"))
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    assert main(["predict", str(tiny_run), str(tmp_path / "bad.mp4"), str(good), "--json"]) == 2
    shown = capsys.readouterr()
    assert json.loads(shown.out)["path"] == str(good)
    skipped, end = shown.err.splitlines()
    assert skipped.startswith(f"skipped {tmp_path / 'bad.mp4'}: unreadable")
    assert end.startswith("cbam3d: predict: 1 file cannot be read, the first: ")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--window", "0"], "--window must be above 0, got 0.0"),
        (["--step", "1"], "--step goes with --window"),
        (["--top", "0"], "--top must be above 0, got 0"),
        (["--top", "3", "--events", "csv"], "--top does not go with --events"),
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
    assert main(["predict", str(tiny_run), str(path), f"{served}/numbers.ts", "--step", "1", "--json"]) == 0
    whole, part = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (whole["start_seconds"], part["start_seconds"]) == (None, 0.0)


def test_files_that_are_broken_off_are_no_success(tiny_run, monkeypatch, capsys):
    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("cbam3d.runs.windows.predict_windows", interrupted)
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos")]) == 130


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
    assert "would be overwritten" in capsys.readouterr().err
    assert other.read_bytes() == before
    assert main(["predict", str(tiny_run), str(path), str(other), "--annotate", str(path.parents[1] / "out")]) == 0
    counts = {file.name: probe_video(file).num_frames for file in (path.parents[1] / "out").iterdir()}
    assert counts == {"v.mp4": 20, "v-2.mp4": 30}
    assert main(["predict", str(tiny_run), str(path), "--annotate", str(path)]) == 2
    assert "cannot be used as a folder" in capsys.readouterr().err


@pytest.mark.parametrize("seconds", ["1e-7", "nan", "-1", "inf"])
def test_windows_are_times(tiny_run, seconds, capsys):
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos"), "--window", seconds]) == 2
    assert "--window must be above 0" in capsys.readouterr().err
    assert main(["predict", str(tiny_run), str(tiny_run.parent / "videos"), "--device", "tpu"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
