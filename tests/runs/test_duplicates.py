"""Videos that a score should not be of."""

import math
import shutil
from pathlib import Path

import pytest

from cbam3d import open_run, train
from cbam3d.data.manifest import read_manifest
from cbam3d.data.split import rows_of
from cbam3d.errors import InputError
from cbam3d.runs.duplicates import _Part
from cbam3d.runs.preparation import prepare
from tests.tiny import TINY, train_tiny

SPLIT = {"augment.flip": False, "data.recipe": "folder"}


@pytest.fixture(scope="module")
def known(tiny_run, tmp_path_factory):
    """A run on sixteen videos of two classes, of which chance held out some."""
    root = tmp_path_factory.mktemp("known")
    for number, path in enumerate(sorted((tiny_run.parent / "videos").rglob("*.*"))):
        if path.suffix in (".mp4", ".avi", ".mkv"):
            target = root / "videos" / "ab"[number % 2] / f"{number:02d}{path.suffix}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, target)
    train_tiny(root / "videos", root / "run", SPLIT)
    return root


def moved(known, tmp_path):
    """The same videos with those of training held out."""
    table = read_manifest(known / "run" / "manifest.csv", allow_outside=True)
    for split, name in (("train", "test"), ("test", "train")):
        for path in rows_of(table, split).path:
            target = tmp_path / "videos" / name / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(known / "videos" / path, target)
    return str(tmp_path / "videos")


def test_videos_of_training_are_not_scored_elsewhere(known, tmp_path):
    other = moved(known, tmp_path)
    with pytest.raises(InputError, match=r"held-out videos in the training of .*run, the first is test/a/"):
        open_run(known / "run").evaluate({"data.root": other})
    open_run(known / "run").evaluate({"data.root": other, "data.allow_leaks": True})


@pytest.mark.parametrize("weights", ["run", "run/checkpoints/last.ckpt"])
def test_videos_of_training_are_not_held_out_after_it(known, tmp_path, weights):
    values = TINY | SPLIT | {"data.root": moved(known, tmp_path), "model.weights": str(known / weights)}
    with pytest.raises(InputError, match=r"in the training of .*run, the first is test/a/"):
        train(values, run_dir=tmp_path / "tuned")
    assert not (tmp_path / "tuned").exists()
    train(values | {"data.root": str(known / "videos")}, run_dir=tmp_path / "tuned")  # held out as then


def test_held_out_videos_alone_suffice_to_be_scored(known, tmp_path):
    table = read_manifest(known / "run" / "manifest.csv", allow_outside=True)
    for path in rows_of(table, "test").path:
        target = tmp_path / "videos" / "test" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(known / "videos" / path, target)
    run = open_run(known / "run")
    elsewhere = run.evaluate({"data.root": str(tmp_path / "videos")})
    assert elsewhere.scores == run.evaluate().scores
    for path in (tmp_path / "videos" / "test").iterdir():
        path.rename(tmp_path / "videos" / path.name)
    (tmp_path / "videos" / "test").rmdir()  # now chance would hold out half of them
    everything = run.evaluate({"data.root": str(tmp_path / "videos"), "data.test_fraction": 1.0})
    assert everything.scores == elsewhere.scores


def test_the_same_video_in_training_and_held_out_is_said(known, tmp_path, caplog):
    root = tmp_path / "videos"
    for split in ("train", "test"):
        shutil.copytree(known / "videos", root / split)
    train(TINY | SPLIT | {"data.root": str(root)}, run_dir=tmp_path / "run")
    assert "pairs of near-duplicates across splits, the first is test/a/" in caplog.text
    assert "give both one group" in caplog.text


def test_two_videos_with_one_copy_are_refused(known, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(known / "videos", root)
    first = next(root.glob("a/*.*"))
    shutil.copy(first, root / "a" / "x.mp4")
    shutil.copy(first, root / "a" / "x.mp4.avi")
    with pytest.raises(InputError, match=r"x.mp4.avi would be the copy of a/x.mp4 and of a/x.mp4.avi: rename one"):
        prepare("folder", root, short_side=16)


def test_videos_that_changed_since_a_table_was_written(known, tmp_path):
    root = tmp_path / "videos"
    shutil.copytree(known / "videos", root)
    prepare("folder", root)
    path = next(root.glob("a/*.*"))
    path.write_bytes(path.read_bytes() + b"more")
    with pytest.raises(InputError, match=r"1 video of .*, the first is a/.*, changed since .*manifest.csv was written"):
        train(TINY | SPLIT | {"data.root": str(root)}, run_dir=tmp_path / "run")


def test_files_of_the_same_name_and_size_may_be_others(known, tmp_path, caplog):
    root = Path(moved(known, tmp_path))
    for path in (root / "test").rglob("*.*"):
        if path.is_file():
            content = bytearray(path.read_bytes())
            content[-1] ^= 255
            path.write_bytes(content)
    open_run(known / "run").evaluate({"data.root": str(root)})
    assert "of the name and size" not in caplog.text
    (known / "videos").rename(known / "away")
    try:
        open_run(known / "run").evaluate({"data.root": str(root)})
    finally:
        (known / "away").rename(known / "videos")
    assert "held-out videos of the name and size of videos of the training of" in caplog.text


def test_a_renamed_video_of_training_is_known_and_parts_that_do_not_overlap_are_others(known, tmp_path):
    table = read_manifest(known / "run" / "manifest.csv", allow_outside=True)
    trained, held_out = (rows_of(table, split) for split in ("train", "test"))
    for rows, number in ((held_out, 0), (trained, 1)):
        for path in rows.path:
            target = tmp_path / "videos" / "test" / path.partition("/")[0] / f"other{number}{Path(path).name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(known / "videos" / path, target)
    with pytest.raises(
        InputError, match=rf"{len(trained)} held-out videos in the training of .*run, the first is test/"
    ):
        open_run(known / "run").evaluate({"data.root": str(tmp_path / "videos")})
    parts = [_Part("a", 5, 0, 2), _Part("a", 5, 2, 4), _Part("a", 5, 1.9, 3), _Part("a", 5, 0, math.inf)]
    assert [[one.overlaps(other) for other in parts] for one in parts] == [
        [True, False, True, True],
        [False, True, True, True],
        [True, True, True, True],
        [True, True, True, True],
    ]
