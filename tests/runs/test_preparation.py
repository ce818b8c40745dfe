import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import partial

import pytest

from cbam3d.cli import main
from cbam3d.data.manifest import read_manifest
from cbam3d.video import read_clip
from tests.conftest import numbered_frames, read_numbers


@pytest.fixture
def videos(tmp_path, make_video):
    for label in ("run", "walk"):
        for i in range(3):
            make_video(f"videos/{label}/{i}.mp4", 10 + 5 * i + (label == "walk"))
    return tmp_path / "videos"


def prepare(capsys, *arguments):
    status = main(["prepare", *map(str, arguments)])
    captured = capsys.readouterr()
    return status, captured.out, captured.err


def test_the_table_and_a_report(videos, capsys):
    (videos / "run" / "empty.mp4").write_bytes(b"")
    shutil.copy(videos / "run" / "0.mp4", videos / "walk" / "again.mp4")
    status, out, _ = prepare(capsys, "folder", "--root", videos)
    assert status == 0
    assert "run/empty.mp4: empty file" in out
    assert "pairs of near-duplicates" in out
    rows = {line.split("│")[1].strip(): line.split("│")[2:4] for line in out.splitlines() if line.startswith("│")}
    assert {name: [int(count) for count in counts] for name, counts in rows.items()} == {"run": [4, 3], "walk": [4, 4]}
    table = read_manifest(videos / "manifest.csv")
    with open(videos / "manifest.csv") as file:
        header = "path,label,group,split,num_frames,fps,width,height,duration_seconds,problem,num_bytes,changed_ns"
        assert file.readline().strip() == header
    assert table.num_frames.tolist() == [10, 15, 20, 0, 11, 16, 21, 10]
    with open(videos / "duplicates.csv") as file:
        assert ("run/0.mp4", "walk/again.mp4") in [(pair["path"], pair["other_path"]) for pair in csv.DictReader(file)]
    status, _, err = prepare(capsys, "folder", "--root", videos)
    assert status == 2
    assert "manifest.csv exists: remove it" in err


def test_training_with_the_table_opens_no_video_ahead(videos, capsys, monkeypatch):
    prepare(capsys, "folder", "--root", videos)
    from rich.console import Console

    from cbam3d import sources
    from cbam3d.config import Config, Data
    from cbam3d.video import container

    monkeypatch.setattr(container.av, "open", None)
    source = sources.open_source(Config(data=Data(recipe="folder", root=str(videos))), Console(quiet=True))
    assert len(source.train) + len(source.test) == 6


def test_copies_are_trained_on_like_the_originals(videos, capsys, tmp_path):
    status, out, _ = prepare(capsys, "folder", "--root", videos, "--short-side", 24, "--gop", 4)
    assert status == 0
    copies = tmp_path / "videos-24p"
    assert f"--data.root {copies}" in out
    table, originals = read_manifest(copies / "manifest.csv"), read_manifest(videos / "manifest.csv")
    assert list(table.path) == [f"{path}.avi" for path in originals.path]
    assert table.num_frames.tolist() == originals.num_frames.tolist()
    assert read_numbers(read_clip(copies / "walk" / "2.mp4.avi", [20, 3])) == [20, 3]
    run = tmp_path / "run"
    keys = ["--data.short_side", "24", "--data.size", "24", "--train.epochs", "1", "--data.num_workers", "0"]
    keys += ["--model.options", "{width: 8}", "--data.test_fraction", "0.4"]
    assert main(["train", "--config", "folder", "--data.root", str(copies), "--run.dir", str(run), *keys]) == 0
    # a later copy takes labels and groups from the table, as somebody may have corrected it
    table = (videos / "manifest.csv").read_text().replace("run/0.mp4,run,", "run/0.mp4,walk,")
    (videos / "manifest.csv").write_text(table)
    assert prepare(capsys, "folder", "--root", videos, "--short-side", 16, "--copies", tmp_path / "small")[0] == 0
    assert read_manifest(tmp_path / "small" / "manifest.csv").label[0] == "walk"
    assert (videos / "manifest.csv").read_text() == table


def test_a_group_in_training_and_held_out_is_an_error_unless_allowed(tmp_path, make_video, capsys):
    make_video("v/train/run/1.mp4", 5)
    make_video("v/train/walk/2.mp4", 6)
    make_video("v/test/run/3.mp4", 7)
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\ntrain/run/1.mp4,s1\ntrain/walk/2.mp4,s2\ntest/run/3.mp4,s1\n")
    status, _, err = prepare(capsys, "folder", "--root", tmp_path / "v", "--groups", groups)
    assert status == 2
    assert "1 groups have videos in training and held out: s1" in err
    assert (tmp_path / "v" / "manifest.csv").exists()  # what was read is not lost
    (tmp_path / "v" / "manifest.csv").unlink()
    arguments = ("folder", "--root", tmp_path / "v", "--groups", groups, "--allow-leaks")
    assert prepare(capsys, *arguments)[0] == 0
    run = ["train", "--config", "folder", "--data.root", str(tmp_path / "v"), "--run.dir", str(tmp_path / "run")]
    assert main(run) == 2
    assert "s1 (data.allow_leaks" in capsys.readouterr().err


def test_a_preparation_that_is_interrupted_goes_on(tmp_path, capsys):
    """Ctrl-C in a real process, while it reads videos that take a while."""
    from cbam3d.video.encode import write_video

    root = tmp_path / "videos"
    (root / "run").mkdir(parents=True)
    frames = numbered_frames(60, 480, 640)
    write_video(root / "run" / "000.mp4", frames, 25)
    for i in range(1, 24):
        shutil.copy(root / "run" / "000.mp4", root / "run" / f"{i:03d}.mp4")
    journal = root / "manifest.csv.unfinished"
    command = [sys.executable, "-m", "cbam3d", "prepare", "folder", "--root", str(root), "--workers", "1"]
    as_in_a_terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore Ctrl-C
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=as_in_a_terminal
    )
    while not (journal.exists() and len(journal.read_text().splitlines()) > 3):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "broken off; the same command goes on from here" in out
    assert "Traceback" not in out
    known = len(journal.read_text().splitlines())
    assert 3 < known < 24
    assert not (root / "manifest.csv").exists()
    assert prepare(capsys, "folder", "--root", root)[0] == 0
    assert read_manifest(root / "manifest.csv").num_frames.tolist() == [60] * 24
    assert not journal.exists()


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["cifar10", "--root", "."], "cifar10 holds images, which need no preparation"),
        (["folder", "--root", "nowhere"], "nowhere: no such folder"),
        (["folder", "--root", ".", "--gop", "0"], "--gop must be at least 1"),
        (["folder", "--root", ".", "--copies", "x"], "--copies has no effect without --short-side"),
        (["folder", "--root", ".", "--short-side", "8", "--copies", "./x"], "copies must not lie among the originals"),
        (["foldr", "--root", "."], "did you mean 'folder'"),
        (["folder", "--root", ".", "--annotations", "nowhere"], "no video in this folder"),
    ],
)
def test_refusals_are_one_line(arguments, reason, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    status, _, err = prepare(capsys, *arguments)
    assert status == 2
    assert reason in err
    assert err.count("\n") == 1


def test_copies_stay_in_their_folder(videos, capsys, make_video):
    make_video("outside.mp4", 10)
    prepare(capsys, "folder", "--root", videos)
    table = videos / "manifest.csv"
    table.write_text(table.read_text().replace("run/0.mp4,", "../outside.mp4,"))
    status, _, error = prepare(capsys, "folder", "--root", videos, "--short-side", "24")
    assert status == 2
    assert "'../outside.mp4' has a path that leads out of the folder" in error
    assert not (videos.parent / "outside.mp4.avi").exists()


def test_a_link_that_leads_out_is_refused_when_it_is_read(videos, tmp_path, capsys, make_video):
    """A table may have been written before the link was there."""
    prepare(capsys, "folder", "--root", videos)
    outside = make_video("outside.mp4", 10)
    (videos / "run" / "0.mp4").unlink()
    (videos / "run" / "0.mp4").symlink_to(outside)
    from cbam3d.data.videos import SampleIndex, VideoDataset

    table = read_manifest(videos / "manifest.csv")
    status, _, _ = prepare(capsys, "folder", "--root", videos, "--short-side", "24")
    assert status == 0
    assert not (tmp_path / "videos-24p" / "run" / "0.mp4.avi").exists()
    assert (tmp_path / "videos-24p" / "run" / "1.mp4.avi").exists()
    for allowed in (False, True):
        data = VideoDataset(videos, table, ["run", "walk"], lambda *_: [[0]], 24, 0, allow_outside=allowed)
        samples = [data.read(SampleIndex(0, item)) for item in range(len(table))]
        problems = [sample.problem for sample in samples if sample.problem]
        reason = "a link that leads out of the folder (data.allow_outside accepts it)"
        assert problems == ([] if allowed else [("run/0.mp4", reason)])
