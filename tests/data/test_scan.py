import shutil

import pytest

from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.scan import scan_videos
from cbam3d.errors import InputError
from cbam3d.resources import bundled

FOLDER = Recipe("folder", "video", ["{split}/{label}/{name}", "{label}/{name}"])


def test_every_video_is_measured_and_every_bad_one_named(tmp_path, make_video):
    make_video("root/b/two.avi", 30, "mpeg4")
    make_video("root/a/one.mp4", 25)
    root = tmp_path / "root"
    (root / "a" / "empty.mp4").write_bytes(b"")
    (root / "a" / "notes.txt").write_text("no video")
    (root / "a" / ".hidden.mp4").write_bytes(b"x")
    shutil.copy(root / "a" / "one.mp4", root / "stray.mp4")
    table = scan_videos(root, FOLDER)
    assert table.text("path") == ["a/empty.mp4", "a/one.mp4", "b/two.avi", "stray.mp4"]
    assert table.num_frames.tolist() == [0, 25, 30, 0]
    assert table.text("label") == ["a", "a", "b", ""]
    assert table.text("group") == table.text("path")  # every video is its own
    problems = table.text("problem")
    assert problems[:3] == ["empty file", "", ""]
    assert problems[3].startswith("path does not fit")


def test_a_link_back_does_not_multiply_the_videos(tmp_path, make_video):
    make_video("root/a/1.mp4", 5)
    (tmp_path / "root" / "a" / "loop").symlink_to(tmp_path / "root")
    assert scan_videos(tmp_path / "root", FOLDER).text("path") == ["a/1.mp4"]


def test_progress_sees_every_file(tmp_path, make_video):
    make_video("root/a/1.mp4", 10)
    make_video("root/a/2.mp4", 10)
    seen = []

    def progress(items, total):
        for item in items:
            seen.append((item.num_frames, total))
            yield item

    scan_videos(tmp_path / "root", FOLDER, progress=progress)
    assert seen == [(10, 2), (10, 2)]


def test_a_groups_file_gives_groups_and_is_held_against_the_folder(tmp_path, make_video):
    for name in ("a/1.mp4", "a/2.mp4", "b/3.mp4"):
        make_video(f"root/{name}", 5)
    groups = tmp_path / "groups.csv"
    groups.write_text("path,label,group\na/1.mp4,a,s1\na/2.mp4,b,s1\nb/3.mp4,b,s2\nb/4.mp4,b,s2\n")
    table = scan_videos(tmp_path / "root", FOLDER, groups)
    rows = dict(zip(table.text("path"), zip(table.text("group"), table.text("problem"), strict=True), strict=True))
    assert rows["a/1.mp4"] == ("s1", "")
    assert rows["a/2.mp4"] == ("s1", "labelled 'b' in groups.csv, but in the folder of 'a'")
    assert rows["b/3.mp4"] == ("s2", "")
    assert rows["b/4.mp4"] == ("s2", "listed in the groups file, but not on disk")
    assert table.num_frames.tolist() == [5, 0, 5, 0]


def test_a_groups_file_that_does_not_fit(tmp_path, make_video):
    make_video("root/a/1.mp4", 5)
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\nb/1.mp4,s1\n")
    with pytest.raises(InputError, match=r"no group for 1 videos of .*root, the first is a/1\.mp4"):
        scan_videos(tmp_path / "root", FOLDER, groups)
    groups.write_text("path,group\na/1.mp4\n")
    with pytest.raises(InputError, match=r"no group for a/1\.mp4"):
        scan_videos(tmp_path / "root", FOLDER, groups)
    groups.write_text("path,source\na/1.mp4,s1\n")
    with pytest.raises(InputError, match="no column 'group'"):
        scan_videos(tmp_path / "root", FOLDER, groups)
    with pytest.raises(InputError, match="No such file"):
        scan_videos(tmp_path / "root", FOLDER, tmp_path / "nowhere.csv")


def test_missing_empty_and_foreign_folders(tmp_path, make_video):
    with pytest.raises(InputError, match="no such folder"):
        scan_videos(tmp_path / "nowhere", FOLDER)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no video in this folder"):
        scan_videos(tmp_path / "empty", FOLDER)
    make_video("one_level_up/UCF-101/Archery/v_Archery_g01_c01.avi", 5, "mpeg4")
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    with pytest.raises(InputError, match=r"none of 1 videos fits; UCF-101/Archery/.*: path does not fit"):
        scan_videos(tmp_path / "one_level_up", ucf101)


def test_a_mislabelled_video_is_named_with_the_nearest_class(tmp_path, make_video):
    make_video("ucf/Archery/v_Archery_g01_c01.avi", 5, "mpeg4")
    make_video("ucf/Archey/v_Archery_g01_c02.avi", 5, "mpeg4")
    table = scan_videos(tmp_path / "ucf", load_recipe(bundled("datasets") / "ucf101"))
    assert table.text("group") == ["Archery_g01", "Archey_g01"]
    assert table.text("problem") == ["", "unknown class of ucf101 'Archey': did you mean 'Archery'?"]
    assert table.num_frames.tolist() == [5, 0]
