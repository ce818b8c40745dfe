"""Predictions for files, folders, patterns and windows, as a user asks for them."""

import json

import pytest

from cbam3d import load_run
from cbam3d.cli import main
from cbam3d.errors import InputError
from cbam3d.predict import find_files, predictions
from tests.conftest import read_numbers


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
    assert "1 files cannot be read, the first: " in shown.err
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
