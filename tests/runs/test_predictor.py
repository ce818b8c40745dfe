"""Predictions for files and windows."""

import pytest
import torch

from cbam3d import load_run
from cbam3d.errors import InputError
from cbam3d.runs.inputs import find_files
from cbam3d.runs.windows import predict_windows
from cbam3d.video import decode, probe
from cbam3d.video.decode import read_clip
from cbam3d.video.encode import write_video
from cbam3d.video.probe import probe_video
from tests.conftest import ffmpeg, numbered_frames, read_numbers


def test_windows_see_their_own_frames_and_times(tiny_run, make_video, monkeypatch):
    """A video of 40 numbered frames at 25 frames a second, in windows of 0.4 s, 0.2 s apart."""
    path = make_video("numbers.mp4", 40)
    predictor = load_run(tiny_run)
    seen = []
    score = predictor.score

    def noting(views):
        seen.append([read_numbers(view) for view in views])
        return score(views)

    monkeypatch.setattr(predictor, "score", noting)
    found = list(predict_windows(predictor, path, 1, 0.4, 0.2))
    times = [(p.start_seconds, p.end_seconds) for p in found]
    assert times == [(pytest.approx(0.2 * i), pytest.approx(0.2 * i + 0.4)) for i in range(7)]
    for i, clips in enumerate(seen):
        frames = [frame for clip in clips for frame in clip]
        assert all(5 * i <= frame < 5 * i + 10 for frame in frames)
    (whole,) = predict_windows(predictor, path, 1, 60.0, 60.0)  # shorter than the window
    assert (whole.start_seconds, whole.end_seconds) == (0.0, pytest.approx(1.6))


def test_files_folders_and_patterns(tmp_path):
    for name in ("a/2.mp4", "a/1.avi", "a/notes.txt", "b.mkv"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    names = [str(tmp_path / "b.mkv"), str(tmp_path / "a"), str(tmp_path / "*.mkv")]
    assert [path.name for path in find_files(names, images=False)] == ["b.mkv", "1.avi", "2.mp4"]
    with pytest.raises(InputError, match="nowhere: no video there"):
        find_files([str(tmp_path / "nowhere")], images=False)


@pytest.mark.parametrize("window", [None, 0.4])
def test_a_copy_shows_the_classes(tiny_run, make_video, tmp_path, window):
    path = make_video("numbers.mp4", 40)
    found = list(predict_windows(load_run(tiny_run), path, 3, window, window, tmp_path / "copy.mp4"))
    assert len(found) == (1 if window is None else 4)
    assert probe_video(tmp_path / "copy.mp4").num_frames == 40
    before, after = (read_clip(file, range(40)).float() for file in (path, tmp_path / "copy.mp4"))
    assert (before - after)[:, :, :24].abs().mean() < 8  # the upper half is as it was
    assert after[:, :, -16:].mean() < 0.8 * before[:, :, -16:].mean()  # the text lies on a dark ground
    assert after[:, :, -16:].amax() > 200


def test_a_copy_that_is_broken_off_is_whole_up_to_there(tiny_run, make_video, tmp_path):
    found = predict_windows(load_run(tiny_run), make_video("n.mp4", 40), 1, 0.4, 0.4, tmp_path / "copy.mp4")
    next(found)
    found.close()
    assert 10 <= probe_video(tmp_path / "copy.mp4").num_frames < 40
    assert not list(tmp_path.glob(".*"))


def test_a_video_that_changes_its_size_keeps_the_first(tiny_run, make_video, tmp_path):
    parts = [make_video("small.h264", 20, bf="0"), tmp_path / "large.h264"]
    write_video(parts[1], numbered_frames(20, 96, 128), 25, "libx264", bf="0")
    (tmp_path / "joined.h264").write_bytes(b"".join(part.read_bytes() for part in parts))
    found = list(predict_windows(load_run(tiny_run), tmp_path / "joined.h264", 1, 0.5, 0.5, tmp_path / "copy.mp4"))
    assert len(found) == 3
    assert probe_video(tmp_path / "copy.mp4").height == 48


def test_a_film_is_not_decoded_to_classify_one_clip(tiny_run, tmp_path, monkeypatch):
    write_video(tmp_path / "film.mp4", numbered_frames(250), 25)
    predictor, decoded = load_run(tiny_run), []
    monkeypatch.setattr(probe, "probe_video", None)
    put = decode._Clip.put
    monkeypatch.setattr(
        decode._Clip, "put", lambda self, number, frame: decoded.append(number) or put(self, number, frame)
    )
    info = probe.measure_video(tmp_path / "film.mp4")
    expected = probe_video(tmp_path / "film.mp4")
    for name in ("num_frames", "fps", "width", "height", "duration_seconds", "problem", "num_bytes", "changed_ns"):
        assert getattr(info, name) == getattr(expected, name), name
    predictor(tmp_path / "film.mp4")
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
    predictor = load_run(tiny_run)
    with pytest.raises(ValueError, match="a step belongs to a window"):
        next(predict_windows(predictor, tmp_path / "v.mp4", 1, None, 1.0))
    parts = list(predict_windows(predictor, tmp_path / "v.mp4", 1, 1.0, None))
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


def test_times_and_numbers_that_make_no_sense_are_refused(tiny_run, make_video):
    predictor, path = load_run(tiny_run), make_video()
    for values, message in (
        ({"window": -1.0}, "window must be at least 0.001 seconds, got -1"),
        ({"window": 0.0}, "window must be at least"),
        ({"window": 0.5, "step": -0.1}, "step must be at least"),
        ({"step": float("inf")}, "step must be at least"),
    ):
        with pytest.raises(InputError, match=message):
            next(predictor.windows(path, **values))
        with pytest.raises(InputError, match=message):
            next(predictor.events(path, **values))
    for top in (0, -1):
        with pytest.raises(InputError, match=f"top must be at least 1, got {top}"):
            predictor(path, top=top)
