import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cbam3d import prepare, train
from cbam3d.config import Config, DataConfig, load_config
from cbam3d.data.batch import SampleIndex
from cbam3d.data.listing import find_videos
from cbam3d.data.manifest import read_manifest
from cbam3d.data.videos import VideoDataset
from cbam3d.errors import InputError
from cbam3d.runs.data import open_source
from cbam3d.runs.inputs import find_files
from cbam3d.video import container, decode, read_clip
from cbam3d.video.encode import write_video
from cbam3d.video.index import PacketIndex
from tests.conftest import numbered_frames, read_numbers
from tests.tiny import train_tiny


@pytest.fixture
def videos(tmp_path, make_video):
    for label in ("run", "walk"):
        for i in range(3):
            make_video(f"videos/{label}/{i}.mp4", 10 + 5 * i + (label == "walk"))
    return tmp_path / "videos"


def test_the_table_and_what_is_wrong(videos, caplog):
    caplog.set_level("INFO", "cbam3d")
    (videos / "run" / "empty.mp4").write_bytes(b"")
    shutil.copy(videos / "run" / "0.mp4", videos / "walk" / "again.mp4")
    done = prepare("folder", videos)
    assert "run/empty.mp4: empty file" in caplog.text
    assert "pairs of near-duplicates" in caplog.text
    assert done.classes() == [("run", 4, 3), ("walk", 4, 4)]
    assert done.path == videos / "manifest.csv"
    table = read_manifest(done.path)
    with open(videos / "manifest.csv") as file:
        header = "path,label,group,split,num_frames,fps,width,height,duration_seconds,problem,num_bytes,changed_ns"
        assert file.readline().strip() == header
    assert table.num_frames.tolist() == [10, 15, 20, 0, 11, 16, 21, 10]
    with open(videos / "duplicates.csv") as file:
        assert ("run/0.mp4", "walk/again.mp4") in [(pair["path"], pair["other_path"]) for pair in csv.DictReader(file)]
    with pytest.raises(InputError, match=r"manifest\.csv exists: remove it"):
        prepare("folder", videos)


def test_training_with_the_table_opens_no_video_ahead(videos, monkeypatch):
    prepare("folder", videos)
    monkeypatch.setattr(container.av, "open", None)
    source = open_source(Config(data=DataConfig(recipe="folder", root=str(videos))))
    assert len(source.train) + len(source.test) == 6


def test_copies_are_trained_on_like_the_originals(videos, tmp_path):
    copies = tmp_path / "videos-24p"
    assert prepare("folder", videos, short_side=24, gop=4).copies == copies
    table, originals = read_manifest(copies / "manifest.csv"), read_manifest(videos / "manifest.csv")
    assert list(table.path) == [f"{path}.avi" for path in originals.path]
    assert table.num_frames.tolist() == originals.num_frames.tolist()
    assert read_numbers(read_clip(copies / "walk" / "2.mp4.avi", [20, 3])) == [20, 3]
    train_tiny(copies, tmp_path / "run", {"data.short_side": 24, "data.size": 24, "data.test_fraction": 0.4})
    # a later copy takes labels and groups from the table, as somebody may have corrected it
    table = (videos / "manifest.csv").read_text().replace("run/0.mp4,run,", "run/0.mp4,walk,")
    (videos / "manifest.csv").write_text(table)
    prepare("folder", videos, short_side=16, copies=str(tmp_path / "small"))
    assert read_manifest(tmp_path / "small" / "manifest.csv").label[0] == "walk"
    assert (videos / "manifest.csv").read_text() == table


def test_groups_that_differ_from_the_table_are_refused(videos, tmp_path):
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\n" + "".join(f"{path},{path}\n" for path in find_videos(videos).videos))
    prepare("folder", videos, groups=str(groups))
    prepare("folder", videos, groups=str(groups), short_side=24)  # the same ones are not
    groups.write_text(groups.read_text().replace("run/0.mp4,run/0.mp4", "run/0.mp4,other"))
    with pytest.raises(InputError, match=r"has group 'run/0.mp4' for run/0.mp4, --groups 'other'"):
        prepare("folder", videos, groups=str(groups), short_side=16)


def test_a_group_in_training_and_held_out_is_an_error_unless_allowed(tmp_path, make_video):
    make_video("v/train/run/1.mp4", 5)
    make_video("v/train/walk/2.mp4", 6)
    make_video("v/test/run/3.mp4", 7)
    groups, root = tmp_path / "groups.csv", tmp_path / "v"
    groups.write_text("path,group\ntrain/run/1.mp4,s1\ntrain/walk/2.mp4,s2\ntest/run/3.mp4,s1\n")
    with pytest.raises(InputError, match="1 groups have videos in training and held out: s1"):
        prepare("folder", root, groups=str(groups))
    assert (root / "manifest.csv").exists()  # what was read is not lost
    (root / "manifest.csv").unlink()
    prepare("folder", root, groups=str(groups), allow_leaks=True)
    with pytest.raises(InputError, match=r"s1 \(data\.allow_leaks"):
        train({"config": "folder", "data.root": str(root)}, run_dir=tmp_path / "run")


def noted(journal):
    """How many results it has."""
    return sum(len(path.read_text().splitlines()) for path in journal.glob("*.jsonl"))


def test_a_preparation_that_is_interrupted_goes_on(tmp_path):
    """Ctrl-C in a real process, while it reads videos that take a while."""
    root = tmp_path / "videos"
    (root / "run").mkdir(parents=True)
    frames = numbered_frames(60, 480, 640)
    write_video(root / "run" / "000.mp4", frames, 25)
    for i in range(1, 24):
        shutil.copy(root / "run" / "000.mp4", root / "run" / f"{i:03d}.mp4")
    journal = root / ".manifest.unfinished"
    command = [sys.executable, "-m", "cbam3d", "prepare", "folder", "--root", str(root), "--workers", "1"]
    as_in_a_terminal = partial(signal.signal, signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore Ctrl-C
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, preexec_fn=as_in_a_terminal
    )
    while not (noted(journal) > 3):
        assert process.poll() is None
        time.sleep(0.01)
    os.kill(process.pid, signal.SIGINT)
    out, _ = process.communicate(timeout=60)
    assert process.returncode == 130, out
    assert "interrupted; the same command resumes from here" in out
    assert "Traceback" not in out
    known = noted(journal)
    assert 3 < known < 24
    assert not (root / "manifest.csv").exists()
    prepare("folder", root)
    assert read_manifest(root / "manifest.csv").num_frames.tolist() == [60] * 24
    assert not journal.exists()


@pytest.mark.slow
def test_a_preparation_that_is_killed_again_and_again_ends_with_the_same_bytes(tmp_path):
    """kill -9 at ten random moments; only the parent is killed, as by a system that runs out of memory."""
    root, other, rng = tmp_path / "videos", tmp_path / "other", np.random.default_rng(0)
    (root / "run").mkdir(parents=True)
    for i in range(40):
        write_video(root / "run" / f"{i:03d}.mp4", np.roll(numbered_frames(40, 480, 640), i, 0), 25)
    shutil.copytree(root, other)  # with the files' times
    prepare("folder", other, short_side=64)
    command = [sys.executable, "-m", "cbam3d", "prepare", "folder", "--root", str(root), "--short-side", "64"]
    kills, journal = 0, root / ".manifest.unfinished"
    while True:
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        known = noted(journal)
        while process.poll() is None and kills < 10:
            if noted(journal) > known:
                time.sleep(rng.uniform(0, 0.3))
                process.kill()
                break
            time.sleep(0.005)
        out, _ = process.communicate(timeout=120)
        if process.returncode != -signal.SIGKILL:
            break
        kills += 1
    assert process.returncode == 0, out
    assert kills == 10
    expected = {path.relative_to(other): path for path in other.rglob("*") if path.is_file()}
    found = {path.relative_to(root): path for path in root.rglob("*") if path.is_file()}
    assert found.keys() == expected.keys()
    for name, path in found.items():
        assert path.read_bytes() == expected[name].read_bytes(), name
    ours, theirs = (Path(f"{folder}-64p") for folder in (root, other))
    assert len(list(ours.rglob("*.avi"))) == 40
    for copy in theirs.rglob("*.avi"):
        assert (ours / copy.relative_to(theirs)).read_bytes() == copy.read_bytes()
    first, second = (read_manifest(folder / "manifest.csv").rows() for folder in (ours, theirs))
    for row, other_row in zip(first, second, strict=True):
        assert row | {"changed_ns": 0} == other_row | {"changed_ns": 0}
    assert not list(ours.rglob("*.part*"))


@pytest.mark.parametrize(
    ("recipe", "root", "options", "reason"),
    [
        ("cifar10", ".", {}, "cifar10 holds images, which need no preparation"),
        ("folder", "nowhere", {}, "nowhere: no such folder"),
        ("folder", ".", {"gop": 0}, "--gop must be at least 1"),
        ("folder", ".", {"copies": "x"}, "--copies has no effect without --short-side"),
        ("folder", ".", {"short_side": 8, "copies": "./x"}, "copies must not lie among the originals"),
        ("foldr", ".", {}, "did you mean 'folder'"),
        ("folder", ".", {"annotations": "nowhere"}, "no video in this folder"),
    ],
)
def test_refusals_are_one_line(recipe, root, options, reason, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=reason) as raised:
        prepare(recipe, root, **options)
    assert "\n" not in str(raised.value)


def test_copies_stay_in_their_folder(videos, make_video):
    make_video("outside.mp4", 10)
    prepare("folder", videos)
    table = videos / "manifest.csv"
    table.write_text(table.read_text().replace("run/0.mp4,", "../outside.mp4,"))
    with pytest.raises(InputError, match=r"'\.\./outside\.mp4' \(row 2\) has a path that leads out of the folder"):
        prepare("folder", videos, short_side=24)
    assert not (videos.parent / "outside.mp4.avi").exists()


def test_a_link_that_leads_out_is_refused_when_it_is_read(videos, tmp_path, make_video):
    """A table may have been written before the link was there."""
    prepare("folder", videos)
    outside = make_video("outside.mp4", 10)
    (videos / "run" / "0.mp4").unlink()
    (videos / "run" / "0.mp4").symlink_to(outside)
    table = read_manifest(videos / "manifest.csv")
    prepare("folder", videos, short_side=24)
    assert not (tmp_path / "videos-24p" / "run" / "0.mp4.avi").exists()
    assert (tmp_path / "videos-24p" / "run" / "1.mp4.avi").exists()
    for allowed in (False, True):
        data = VideoDataset(videos, table, ["run", "walk"], lambda *_: [[0]], 24, 0, allow_outside=allowed)
        samples = [data.read(SampleIndex(0, item)) for item in range(len(table))]
        problems = [sample.problem for sample in samples if sample.problem]
        reason = "a link that leads out of the folder (data.allow_outside accepts it)"
        assert problems == ([] if allowed else [("run/0.mp4", reason)])


def test_packets_are_kept_for_originals_and_copies(videos, monkeypatch):
    """Training reads no packets but those of its clips; a file that has changed is read as if nothing were kept."""
    (videos / "run" / "0.avi").write_bytes((videos / "run" / "1.mp4").read_bytes()[:-2000])  # damaged
    copies = prepare("folder", videos, short_side=24).copies
    tabulated = []
    tabulate = decode._table_of
    monkeypatch.setattr(decode, "_table_of", lambda *given: tabulated.append(given) or tabulate(*given))
    for root in (videos, copies):
        monkeypatch.setattr(decode, "_tables", decode._Tables(2**20))
        source = open_source(Config(data=DataConfig(recipe="folder", root=str(root), num_frames=4, test_fraction=0.5)))
        for data in (source.train, source.test):
            for i in range(len(data)):
                assert data.read(SampleIndex(0, i)).views
    assert not tabulated
    shutil.copy(videos / "walk" / "2.mp4", videos / "run" / "2.mp4")
    monkeypatch.setattr(decode, "_tables", decode._Tables(2**20))
    index = PacketIndex(videos / "manifest.packets")
    assert read_numbers(read_clip(videos / "run" / "2.mp4", [20], index=index)) == [20]
    assert len(tabulated) == 1


def test_folders_of_images_are_videos(tmp_path, make_video, caplog):
    """Prepared, trained, scored and predicted as the videos that they are of; copies are videos."""
    root = tmp_path / "frames"
    for label in ("run", "walk"):
        for i in range(4):
            whole = read_clip(make_video(f"videos/{label}/{i}.mp4", 10 + i), range(10 + i))
            (root / label / str(i)).mkdir(parents=True)
            for number, frame in enumerate(whole.movedim(0, -1).numpy(), start=7):
                Image.fromarray(frame).save(root / label / str(i) / f"{number:06d}.png")
    (root / "run" / "0" / "000009.png").unlink()
    (root / "walk" / "1" / "000008.png").write_bytes(b"")
    done = prepare("frames", root, short_side=32)
    assert "run/0: 1 missing frame, the first is 9" in caplog.text
    assert "walk/1: 000008.png is no JPEG, PNG, WebP or BMP image" in caplog.text
    assert done.manifest.num_frames.tolist() == [9, 11, 12, 13, 10, 0, 12, 13]
    copied = read_manifest(done.copies / "manifest.csv")
    assert list(copied.path)[:2] == ["run/0.avi", "run/1.avi"]
    assert read_numbers(read_clip(done.copies / "run" / "3.avi", range(13))) == list(range(13))
    assert read_numbers(read_clip(root / "run" / "0", [1, 2])) == [1, 3]
    run = train_tiny(root, tmp_path / "run", {"data.recipe": "frames"})
    assert run.metrics["num_videos"] >= 2
    found = find_files([str(root / "walk" / "2"), str(root / "run")], images=False)
    assert [path.relative_to(root).as_posix() for path in found] == ["walk/2", "run/0", "run/1", "run/2", "run/3"]
    assert {label for label, _ in run.predictor()(found[0])} == {"run", "walk"}
    again = train_tiny(done.copies, tmp_path / "other", {"data.recipe": "frames"})
    assert again.metrics["num_videos"] >= 2


@pytest.mark.parametrize("column", ["label", "labels"])
def test_parts_are_prepared_once_a_file_and_read_from_copies_and_shards(tmp_path, make_video, column):
    rows = [f"path,{column},start,end,group"]
    for i in range(3):
        make_video(f"videos/{i}.mp4", 60)
        rows += [f"{i}.mp4,run,0,0.8,g{i}", f"{i}.mp4,walk,0.8,2,g{i}", f"{i}.mp4,run,2,,g{i}"]
    (tmp_path / "videos" / "annotations.csv").write_text("\n".join(rows) + "\n")
    done = prepare("folder", tmp_path / "videos", short_side=32, shards=str(tmp_path / "shards"))
    assert done.classes() == [("run", 6, 6), ("walk", 3, 3)]
    packets = PacketIndex(tmp_path / "videos" / "manifest.packets")
    assert packets._columns.shape[1] == 3
    found = {}
    for folder in ("videos", "videos-32p", "shards"):
        table = read_manifest(tmp_path / folder / "manifest.csv")
        assert table.several == (column == "labels")
        assert table.first_frame.tolist() == [0, 20, 50] * 3
        assert table.num_frames.tolist() == [20, 30, 10] * 3
        assert list(table.group) == [f"g{i}" for i in range(3) for _ in range(3)]
        data = VideoDataset(tmp_path / folder, table, ["run", "walk"], lambda n, fps, rng: [[0, n - 1]], 48, 0)
        found[folder] = [read_numbers(data.read(SampleIndex(0, i)).views[0]) for i in range(9)]
    assert found["videos"] == [[0, 19], [20, 49], [50, 59]] * 3
    assert found["videos-32p"] == found["shards"] == found["videos"]
    with tarfile.open(next((tmp_path / "shards").glob("train-*.tar"))) as archive:
        names = archive.getnames()
        facts = json.loads(archive.extractfile(next(name for name in names if name.endswith(".json"))).read())
        label = archive.extractfile(next(name for name in names if name.endswith((".cls", ".txt")))).read()
    assert label == (b"run" if column == "labels" else b"0")
    assert [(part["label"], part["start"], part["first_frame"]) for part in facts["parts"]] == [
        ("run", 0, 0),
        ("walk", 0.8, 20),
        ("run", 2, 50),
    ]
    assert sum(name.endswith(".avi") for name in names) == len(names) / 3
    assert done.copies == tmp_path / "videos-32p"
    again = prepare("folder", tmp_path / "videos", short_side=24)  # copies of what the table has
    assert read_manifest(again.copies / "manifest.csv").first_frame.tolist() == [0, 20, 50] * 3


def test_parts_of_one_video_in_two_splits_are_not_mixed(tmp_path, make_video):
    rows = ["path,label,start,end,group,split"]
    for i in range(2):
        make_video(f"videos/{i}.mp4", 50)
        rows += [f"{i}.mp4,run,0,0.8,a{i},train", f"{i}.mp4,walk,0.8,2,b{i},{'train' if i else 'test'}"]
    (tmp_path / "videos" / "annotations.csv").write_text("\n".join(rows) + "\n")
    with pytest.raises(InputError, match=r"--shards: 0\.mp4 has parts in several splits"):
        prepare("folder", tmp_path / "videos", shards=str(tmp_path / "shards"))
    config = load_config({"config": "folder", "data.root": str(tmp_path / "videos"), "data.reach": 0.5})
    with pytest.raises(InputError, match=r"data\.reach: 0\.mp4 has parts in several splits"):
        open_source(config)
