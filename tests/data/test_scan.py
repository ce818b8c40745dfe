import os
import shutil
from fractions import Fraction

import av
import numpy as np
import pytest

from cbam3d.config.bundled import bundled
from cbam3d.data import scan
from cbam3d.data.listing import list_videos
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.scan import Reading
from cbam3d.data.split import assign_splits
from cbam3d.errors import InputError
from cbam3d.storage import state_of
from cbam3d.video import probe_video, read_clip
from cbam3d.video.decode import read_packets
from cbam3d.video.index import decode
from cbam3d.video.probe import Copies
from tests.conftest import read_numbers
from tests.data import misbehaving

FOLDER = Recipe("folder", "video", ["{split}/{label}/{name}", "{label}/{name}"])


def run(root, recipe=FOLDER, groups_file=None, **options):
    of_reading = {name: options.pop(name) for name in ("journal", "copies", "timeout_seconds") if name in options}
    return scan.scan_videos(list_videos(root, recipe, groups_file), Reading(root, **of_reading), **options).manifest


def lines_of(journal):
    return [line for path in journal.iterdir() for line in path.read_text().splitlines()]


def test_every_video_is_measured_and_every_bad_one_named(tmp_path, make_video):
    make_video("root/b/two.avi", 30, "mpeg4")
    make_video("root/a/one.mp4", 25)
    root = tmp_path / "root"
    (root / "a" / "empty.mp4").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("no video")
    (root / "a" / ".hidden.mp4").write_bytes(b"x")
    shutil.copy(root / "a" / "one.mp4", root / "stray.mp4")
    table = run(root)
    assert list(table.path) == ["a/empty.mp4", "a/one.mp4", "b/two.avi", "stray.mp4"]
    assert table.num_frames.tolist() == [0, 25, 30, 0]
    assert list(table.label) == ["a", "a", "b", ""]
    assert list(table.group) == list(table.path)  # every video is its own
    problems = list(table.problem)
    assert problems[:3] == ["empty file", "", ""]
    assert problems[3].startswith("path does not fit")


def test_an_unexpected_error_costs_one_file_only(caplog):
    def results():
        raise ValueError("k must be\nan integer")
        yield

    info = scan._outcome(results(), 1.0)
    assert (info.num_frames, info.problem) == (0, "unexpected ValueError (k must be an integer)")
    assert "Traceback" in caplog.text  # a bug of ours keeps it

    def no_copies():
        raise InputError("copies/a.avi: cannot be written (no space left on device)")
        yield

    with pytest.raises(InputError, match="no space left"):
        scan._outcome(no_copies(), 1.0)


def test_a_link_back_does_not_multiply_the_videos(tmp_path, make_video):
    make_video("root/a/1.mp4", 5)
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    assert list(run(tmp_path / "root").path) == ["a/1.mp4"]


def test_progress_sees_every_file(tmp_path, make_video):
    make_video("root/a/1.mp4", 10)
    make_video("root/a/2.mp4", 10)
    seen = []

    def progress(items, total):
        for item in items:
            seen.append((item.num_frames, total))
            yield item

    run(tmp_path / "root", progress=progress)
    assert seen == [(10, 2), (10, 2)]


def test_a_groups_file_gives_groups_and_is_held_against_the_folder(tmp_path, make_video):
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        make_video(f"root/{name}", 5)
    groups = tmp_path / "groups.csv"
    groups.write_text("path,label,group\na/1.mp4,a,s1\na/2.mp4,b,s1\nb/3.mp4,b,s2\nb/4.mp4,b,s2\n")
    table = run(tmp_path / "root", groups_file=groups)
    rows = dict(zip(list(table.path), zip(list(table.group), list(table.problem), strict=True), strict=True))
    assert rows["a/1.mp4"] == ("s1", "")
    assert rows["a/2.mp4"] == ("s1", "labelled 'b' in groups.csv, but in the folder of 'a'")
    assert rows["b/3.mp4"] == ("s2", "")
    assert table.num_frames.tolist() == [5, 0, 5]
    assert list_videos(tmp_path / "root", FOLDER, groups).missing == ["b/4.mp4"]


def test_a_mislabelled_video_is_named_with_the_nearest_class(tmp_path, make_video):
    make_video("ucf/Archery/v_Archery_g01_c01.avi", 5, "mpeg4")
    make_video("ucf/Archey/v_Archery_g01_c02.avi", 5, "mpeg4")
    table = run(tmp_path / "ucf", load_recipe(bundled("datasets") / "ucf101"))
    assert list(table.group) == ["Archery_g01", "Archey_g01"]
    assert list(table.problem) == ["", "unknown class of ucf101 'Archey': did you mean 'Archery'?"]
    assert table.num_frames.tolist() == [5, 0]


def test_a_file_that_hangs_or_crashes_the_decoder_is_named_and_the_others_go_on(tmp_path, make_video, monkeypatch):
    """The worker is killed from outside: what FFmpeg does in C cannot be interrupted from within."""
    for i in range(3):
        make_video(f"root/a/{i}.mp4", 5)
    monkeypatch.setattr(scan, "_probe", misbehaving.probe)
    monkeypatch.setattr(scan, "_GRACE_SECONDS", 0.5)
    table = run(tmp_path / "root", workers=1, timeout_seconds=3)  # a new worker may take a second to start
    first, second, third = table.problem
    assert (first, third) == ("timeout (not read within 3 seconds)", "")
    assert second.startswith("crashes the decoder (exit code -")
    assert table.num_frames.tolist() == [0, 0, 5]


def test_a_scan_that_was_broken_off_goes_on(tmp_path, make_video):
    for i in range(4):
        make_video(f"root/a/{i}.mp4", 5 + i)
    root, journal = tmp_path / "root", tmp_path / "journal"

    def break_off(items, total):
        for i, item in enumerate(items):
            yield item
            if i == 1:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(root, journal=journal, progress=break_off)
    assert len(lines_of(journal)) == 2
    (part,) = journal.iterdir()
    with open(part, "a") as file:
        file.write('{"path": "a/2.mp4", "sta')  # killed while it wrote
    os.utime(root / "a" / "1.mp4", (0, 0))  # changed in the meantime
    known = Reading(root, journal=journal).notes().read(lambda name: state_of(root / name))
    assert {path: info.num_frames for path, info in known.items()} == {"a/0.mp4": 5}
    # A number of frames that only the journal can tell shows that what it knows is not read again.
    part.write_text(part.read_text().replace('"num_frames": 5', '"num_frames": 99'))
    assert run(root, journal=journal).num_frames.tolist() == [99, 6, 7, 8]


def test_what_failed_is_tried_again(tmp_path, make_video, monkeypatch):
    make_video("root/a/0.mp4", 5)
    (tmp_path / "root" / "a" / "1.mp4").write_bytes(b"no video")
    journal = tmp_path / "journal"
    assert run(tmp_path / "root", journal=journal).num_frames.tolist() == [5, 0]
    known = Reading(tmp_path / "root", journal=journal).notes().read(lambda name: state_of(tmp_path / "root" / name))
    assert [*known] == ["a/0.mp4"]


@pytest.mark.parametrize("rate", [Fraction(120_000, 1_001), Fraction(23_976, 1_000), Fraction(100_000)])
def test_a_copy_of_any_frame_rate_can_be_written(tmp_path, make_video, rate):
    with av.open(make_video(count=20)) as container:
        Copies(tmp_path / "copies", 24, 5).write("a.avi", container.decode(video=0), (24, 32), rate)
    info = probe_video(tmp_path / "copies" / "a.avi")
    assert (info.num_frames, info.problem) == (20, "")
    if rate < 600:  # beyond, FFmpeg doubts it
        assert info.fps == pytest.approx(float(rate), rel=1e-3)


def test_parts_of_a_variable_rate_have_the_times_of_their_frames_in_the_copy(tmp_path):
    """10 frames of 0.1 s, then 10 of 0.4 s: at the mean rate of 4 frames a second, frame 10 is shown at 2.5 s."""
    row = {"fps": 4.0, "start": 1.0, "end": 5.0, "first_frame": 10, "num_frames": 10, "duration_seconds": 5.0}
    assert scan._times_in_copy(row) == {"start": 2.5, "end": 5.0}
    exact = {**row, "start": 2.45, "end": 5.9}  # of a constant rate: as listed
    assert scan._times_in_copy(exact) == {}
    assert scan._times_in_copy({**row, "start": 0.0, "end": 0.0}) == {}  # no part


def test_copies_are_small_and_equal_in_content(tmp_path, make_video):
    make_video("root/a/1.mp4", 40, g="250")
    make_video("root/a/1.avi", 30, "mpeg4")
    (tmp_path / "root" / "a" / "bad.mp4").write_bytes(b"")
    copies = Copies(tmp_path / "copies", short_side=24, gop=5)
    found = scan.scan_videos(list_videos(tmp_path / "root", FOLDER), Reading(tmp_path / "root", copies=copies))
    table, packets = scan.copies_manifest(copies, found)
    assert list(table.path) == ["a/1.avi", "a/1.mp4.avi"]
    assert table.num_frames.tolist() == [30, 40]
    assert (table.height.tolist(), table.width.tolist()) == ([24, 24], [32, 32])
    for path, count, kept in zip(table.path, (30, 40), packets, strict=True):
        copy = copies.root / path
        assert decode(kept) == read_packets(copy)
        info = probe_video(copy)
        assert (info.num_frames, info.height, info.width, info.fps, info.problem) == (count, 24, 32, 25.0, "")
        assert read_numbers(read_clip(copy, range(count))) == list(range(count))
        with av.open(str(copy)) as container:
            keyframes = [packet.is_keyframe for packet in container.demux(video=0) if packet.size]
        assert np.diff(np.flatnonzero([*keyframes, True])).max() == 5  # the encoder adds some where the scene changes


def test_names_of_every_kind_and_links_to_nowhere(tmp_path, make_video):
    """A link to nowhere, a line separator and a newline in a name, and a name that is no UTF-8."""
    names = ["a/x\u2028y.mp4", "a/x\ny.mp4", os.fsdecode(b"a/\xff.mp4")]
    for name in names:
        make_video(f"root/{name}", 5)
    (tmp_path / "root" / "a" / "gone.mp4").symlink_to("nowhere.mp4")
    journal = tmp_path / "journal"
    table = run(tmp_path / "root", journal=journal)
    found = dict(zip(table.path, table.problem, strict=True))
    assert found == {**dict.fromkeys(names, ""), "a/gone.mp4": "no such file"}
    known = Reading(tmp_path / "root", journal=journal).notes().read(lambda name: state_of(tmp_path / "root" / name))
    assert set(known) == set(names)
    assert assign_splits(table, FOLDER, 1, 0.5).split.equals("test").sum() >= 1
