import json
import unicodedata

import pytest

from cbam3d.config.bundled import bundled
from cbam3d.data.listing import list_videos, lists_of
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.errors import InputError

FOLDER = Recipe("folder", "video", ["{split}/{label}/{name}", "{label}/{name}"])


def recipe(name):
    return load_recipe(bundled("datasets") / name)


def touch(root, *paths):
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"not opened")
    return root


def columns(listing, *names):
    return [tuple(row[name] for name in names) for row in listing.found]


def test_hmdb51_follows_its_official_lists(tmp_path):
    root = touch(tmp_path / "hmdb", *(f"wave/{name}.avi" for name in "abcd"), "walk/e.avi")
    lists = tmp_path / "lists"
    lists.mkdir()
    (lists / "wave_test_split1.txt").write_text("a.avi 1 \nb.avi 2 \nc.avi 0 \ngone.avi 1 \n")
    (lists / "walk_test_split1.txt").write_text("e.avi 2\n")
    (lists / "wave_test_split2.txt").write_text("a.avi 2\nb.avi 1\nc.avi 1\n")
    listing = list_videos(root, recipe("hmdb51"), annotations=lists)
    assert columns(listing, "path", "split", "problem") == [
        ("walk/e.avi", "test", ""),
        ("wave/a.avi", "train", ""),
        ("wave/b.avi", "test", ""),
        ("wave/c.avi", "unused", ""),
        ("wave/d.avi", "", "not in the annotations"),
    ]
    assert len(listing.missing) == 1
    second = list_videos(root, recipe("hmdb51"), annotations=lists, split=2)
    assert columns(second, "path", "split")[1:4] == [
        ("wave/a.avi", "test"),
        ("wave/b.avi", "train"),
        ("wave/c.avi", "train"),
    ]
    with pytest.raises(InputError, match="no list of hmdb51 with split 3"):
        list_videos(root, recipe("hmdb51"), annotations=lists, split=3)


@pytest.mark.parametrize("name", ["ucf101", "hmdb51"])
def test_a_stray_file_beside_the_data_sets_videos_is_named(tmp_path, name):
    root = touch(tmp_path / "v", "Archery/v_Archery_g01_c01.avi", "wave/a.avi", "stray.mp4")
    listing = list_videos(root, recipe(name))
    problems = {row["path"]: row["problem"] for row in listing.found}
    assert problems["stray.mp4"].startswith("path does not fit")
    assert list(problems.values()).count("") == 1


def test_ucf101_reads_the_official_lists(tmp_path):
    (tmp_path / "trainlist01.txt").write_text("Archery/v_Archery_g08_c01.avi 3\r\n")
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery_g01_c01.avi\n")
    (tmp_path / "classInd.txt").write_text("3 Archery\n")
    listed = lists_of(recipe("ucf101"), tmp_path, None, 1)
    assert {video: row.split for video, (row,) in listed.items()} == {
        "Archery/v_Archery_g08_c01": "train",
        "Archery/v_Archery_g01_c01": "test",
    }
    (tmp_path / "testlist01.txt").write_text("Archery/v_Archery g01 c01.avi 3\n")
    with pytest.raises(InputError, match=r"testlist01\.txt: .* has 4 fields for the columns video, class_number"):
        lists_of(recipe("ucf101"), tmp_path, None, 1)


@pytest.mark.parametrize(
    ("place", "prefix"),
    [("train/air drumming", ""), ("train", ""), ("air drumming", "kinetics_400_"), ("videos", "kinetics700_2020_")],
)
def test_kinetics_reads_csv_wherever_the_videos_lie(tmp_path, place, prefix):
    root = touch(tmp_path / "k", f"{place}/-a_b-c12345_000007_000017.mp4", f"{place}/zzzzzzzzzzz_000100_000110.mp4")
    header = "label,youtube_id,time_start,time_end,split\n"
    (root / f"{prefix}train.csv").write_text(f"{header}air drumming ,-a_b-c12345,7,17,train\n")
    (root / f"{prefix}validate.csv").write_text(f"{header}zumba,zzzzzzzzzzz,100,110,validate\n")
    listing = list_videos(root, recipe("kinetics"))
    assert columns(listing, "label", "split", "problem") == [("air drumming", "train", ""), ("zumba", "val", "")]


def test_something_something_reads_json(tmp_path):
    root = touch(tmp_path / "ssv2", "20bn/1.webm", "20bn/2.webm", "20bn/3.webm")
    entry = {"label": "moving a pen up", "placeholders": ["a pen"]}
    (root / "something-something-v2-train.json").write_text(
        json.dumps([{"id": "1", "template": "Moving [something] up", **entry}])
    )
    (root / "something-something-v2-validation.json").write_text(
        json.dumps([{"id": "2", "template": "Moving [something] up", **entry}])
    )
    (root / "something-something-v2-test.json").write_text(json.dumps([{"id": "3"}]))
    (root / "something-something-v2-labels.json").write_text(json.dumps({"Moving something up": "0"}))
    listing = list_videos(root, recipe("ssv2"))
    assert columns(listing, "label", "split", "problem") == [
        ("Moving something up", "train", ""),
        ("Moving something up", "val", ""),
        ("", "", "not in the annotations"),
    ]


def test_a_csv_names_videos_that_lie_anywhere(tmp_path):
    root = touch(tmp_path / "v", "x/1.mp4", "2.mp4", "3.mp4")
    table = tmp_path / "mine.csv"
    table.write_text("path, label, group\n./x/1.mp4, run, s1\n2.mp4, walk, s2\n")
    listing = list_videos(root, recipe("folder"), annotations=table)
    assert columns(listing, "path", "label", "group", "problem")[:3] == [
        ("2.mp4", "walk", "s2", ""),
        ("3.mp4", "", "3.mp4", "not in the annotations"),
        ("x/1.mp4", "run", "s1", ""),
    ]


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("a.csv", "path,label\n1.mp4,run\n1.mp4,walk\n", ", row 3: 1.mp4 is listed twice"),
        ("a.csv", "file,label\n1.mp4,run\n", ", row 2: no column 'path', there are file, label"),
        ("a.csv", "path,label\n,run\n", ", row 2: names no video"),
        ("a.csv", "path\n1.mp4\n", ", row 2: no column 'label', there are path"),
        ("a.csv", "path,label,split\n1.mp4,run,validation\n", ", row 2: unknown split 'validation'"),
        ("a.json", "{", ": not a readable list"),
        ("a.json", "{}", ": expected a list of objects"),
        ("a.csv", b"path,label\n\xff,run\n", ": not a readable list"),
        ("a.csv", "path,label,start,end\n1.mp4,run,2,5,4,5\n", ", row 2: 6 fields for 4 columns: quote"),
    ],
)
def test_lists_that_cannot_be_used_are_named(tmp_path, name, content, reason):
    root = touch(tmp_path / "v", "a/1.mp4")
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(InputError, match=f"{name}{reason}"):
        list_videos(root, recipe("folder"), annotations=tmp_path / name)
    with pytest.raises(InputError, match="no such file or folder"):
        list_videos(root, recipe("folder"), annotations=tmp_path / "nowhere")


def test_a_groups_file_that_does_not_fit(tmp_path, make_video):
    make_video("root/a/1.mp4", 5)
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\nb/1.mp4,s1\n")
    with pytest.raises(InputError, match=r"no group for 1 video of .*root, the first is a/1\.mp4"):
        list_videos(tmp_path / "root", FOLDER, groups)
    groups.write_text("path,group\na/1.mp4\n")
    with pytest.raises(InputError, match=r"no group for a/1\.mp4"):
        list_videos(tmp_path / "root", FOLDER, groups)
    groups.write_text("path,source\na/1.mp4,s1\n")
    with pytest.raises(InputError, match="no column 'group'"):
        list_videos(tmp_path / "root", FOLDER, groups)
    with pytest.raises(InputError, match=r"nowhere\.csv: cannot be read \(No such file"):
        list_videos(tmp_path / "root", FOLDER, tmp_path / "nowhere.csv")


def test_missing_empty_and_foreign_folders(tmp_path, make_video):
    with pytest.raises(InputError, match="no such folder"):
        list_videos(tmp_path / "nowhere", FOLDER)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no video in this folder"):
        list_videos(tmp_path / "empty", FOLDER)
    make_video("one_level_up/UCF-101/Archery/v_Archery_g01_c01.avi", 5, "mpeg4")
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    with pytest.raises(InputError, match=r"none of 1 videos fits; UCF-101/Archery/.*: path does not fit"):
        list_videos(tmp_path / "one_level_up", ucf101)
    make_video("flat/a.mp4", 5)
    with pytest.raises(InputError, match=r"the videos of each class belong in a folder with its name$"):
        list_videos(tmp_path / "flat", FOLDER)


def test_links_that_lead_out_are_named(tmp_path):
    touch(tmp_path / "outside", "x.mp4", "folder/y.mp4")
    root = touch(tmp_path / "root", "a/1.mp4", "b/2.mp4")
    (root / "a" / "link.mp4").symlink_to(tmp_path / "outside" / "x.mp4")
    (root / "c").symlink_to(tmp_path / "outside" / "folder")
    (root / "a" / "self.mp4").symlink_to("self.mp4")
    (root / "a" / "self").symlink_to("self")
    (root / "b" / "inside.mp4").symlink_to(root / "a" / "1.mp4")
    listing = list_videos(root, recipe("folder"))
    problems = {row["path"]: row["problem"] for row in listing.found}
    led = "a link that leads out of the folder (allow_outside accepts it)"
    assert problems == {"a/1.mp4": "", "a/link.mp4": led, "b/2.mp4": "", "b/inside.mp4": "", "a/self.mp4": ""}
    assert listing.outside_folders == ["c"]
    followed = list_videos(root, recipe("folder"), allow_outside=True)
    assert [row["path"] for row in followed.found] == [
        "a/1.mp4",
        "a/link.mp4",
        "a/self.mp4",
        "b/2.mp4",
        "b/inside.mp4",
        "c/y.mp4",
    ]
    assert not any(row["problem"] for row in followed.found)


def test_what_is_no_video_by_its_suffix_is_named(tmp_path):
    root = touch(
        tmp_path / "root", "a/1.h264", "a/2.webp", "a/3.xyz", "b/4.MP4", "b/notes.txt", "b/.hidden", "labels.csv"
    )
    listing = list_videos(root, recipe("folder"))
    assert [row["path"] for row in listing.found] == ["a/1.h264", "a/2.webp", "b/4.MP4"]
    assert listing.ignored == ["a/3.xyz", "b/notes.txt"]
    with pytest.raises(InputError, match=r"no video in this folder; 1 other file, e\.g\. a/x\.doc"):
        list_videos(touch(tmp_path / "none", "a/x.doc"), recipe("folder"))


def test_a_groups_file_may_say_the_split(tmp_path):
    root = touch(tmp_path / "root", "a/1.mp4", "a/2.mp4", "b/3.mp4")
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group,split\na/1.mp4,g,train\na/2.mp4,h,test\nb/3.mp4,i,unused\n")
    assert columns(list_videos(root, recipe("folder"), groups), "split") == [("train",), ("test",), ("unused",)]
    groups.write_text("path,group,split\na/1.mp4,g,train\na/2.mp4,h,tset\nb/3.mp4,i,\n")
    with pytest.raises(InputError, match=r"groups\.csv: a/2\.mp4: unknown split 'tset': did you mean 'test'"):
        list_videos(root, recipe("folder"), groups)


def test_a_groups_file_that_contradicts_itself_is_refused(tmp_path):
    root = touch(tmp_path / "root", "a/1.mp4", "b/3.mp4")
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group\na/1.mp4,g\nb/3.mp4,i\na/1.mp4,g\n")
    list_videos(root, recipe("folder"), groups)  # the same again is no contradiction
    groups.write_text("path,group\na/1.mp4,g\nb/3.mp4,i\na/1.mp4,h\n")
    with pytest.raises(InputError, match=r"groups\.csv: a/1\.mp4 is listed twice, with different entries"):
        list_videos(root, recipe("folder"), groups)


def test_a_list_means_one_of_the_files_that_differ_by_their_suffix(tmp_path):
    root = touch(tmp_path / "v", "1.mp4", "1.mov", "2.avi", "2.mkv", "3.mp4", "3.mov")
    table = tmp_path / "a.csv"
    table.write_text("path,label\n1.mp4,run\n2,walk\n3.mp4,run\n3.mov,run\n")
    found = list_videos(root, recipe("folder"), annotations=table)
    assert columns(found, "path", "problem") == [
        ("1.mov", "the lists mean one file of this name, taken is 1.mp4"),
        ("1.mp4", ""),
        ("2.avi", ""),
        ("2.mkv", "the lists mean one file of this name, taken is 2.avi"),
        ("3.mov", ""),
        ("3.mp4", ""),
    ]


def test_groups_are_the_same_however_they_are_typed(tmp_path):
    root = touch(tmp_path / "root", "a/1.mp4", "a/2.mp4", "b/3.mp4")
    groups = tmp_path / "groups.csv"
    groups.write_text("path,group,split\na/1.mp4, caf\u00e9 ,train\na/2.mp4,cafe\u0301, train\nb/3.mp4,x,test \n")
    listing = list_videos(root, recipe("folder"), groups)
    assert columns(listing, "group", "split") == [("caf\u00e9", "train"), ("caf\u00e9", "train"), ("x", "test")]
    table = tmp_path / "a.csv"
    table.write_text("path,label,group\na/1.mp4,a, g \na/2.mp4,a,g\nb/3.mp4,b,h\n")
    assert columns(list_videos(root, recipe("folder"), annotations=table), "group") == [("g",), ("g",), ("h",)]
    groups.write_text("path,group\na/1.mp4,g,1\n")
    with pytest.raises(InputError, match=r"groups\.csv, row 2: 3 fields for 2 columns"):
        list_videos(root, recipe("folder"), groups)


def test_a_contradiction_of_lists_is_said_in_words(tmp_path):
    root = touch(tmp_path / "v", "1.mp4")
    (tmp_path / "a.csv").write_text("path,label\n1.mp4,run\n1.mp4,walk\n")
    with pytest.raises(InputError, match=r"1\.mp4 is listed twice, with the label 'run' and 'walk'$"):
        list_videos(root, recipe("folder"), annotations=tmp_path / "a.csv")


def test_lists_are_found_in_folders_below_the_root_where_it_has_none(tmp_path):
    root = touch(tmp_path / "hmdb", "wave/a.avi", "wave/b.avi")
    (root / "lists").mkdir()
    (root / "lists/wave_test_split1.txt").write_text("a.avi 1\nb.avi 2\n")
    (root / "lists/wave_test_split2.txt").write_text("a.avi 2\nb.avi 1\n")
    assert columns(list_videos(root, recipe("hmdb51")), "split") == [("train",), ("test",)]
    assert columns(list_videos(root, recipe("hmdb51"), split=2), "split") == [("test",), ("train",)]
    with pytest.raises(InputError, match=r"wave_test_split2\.txt: the list of split 2, data\.split is 1"):
        lists_of(recipe("hmdb51"), root, root / "lists/wave_test_split2.txt", 1)


@pytest.mark.parametrize("folder", ["videos_train/riding_a_bike", "compress/train_256/riding_a_bike", "x"])
def test_videos_are_found_in_lists_without_their_folders(tmp_path, folder):
    root = touch(tmp_path / "k", f"{folder}/ID_000002_000012.mp4", f"{folder}/other_000002_000012.mp4")
    (root / "kinetics_train.csv").write_text(
        "label,youtube_id,time_start,time_end,split\nriding a bike,ID,2,12,train\n"
    )
    found, other = columns(list_videos(root, recipe("kinetics")), "label", "split", "problem")
    assert found == ("riding a bike", "train", "")
    assert other[2] == "not in the annotations"


@pytest.mark.parametrize("names", [("Train", "Test"), ("training", "testing"), ("train", "validation")])
def test_folders_of_splits_in_other_words_are_no_classes(tmp_path, names):
    root = touch(tmp_path / "v", *(f"{name}/{label}/1.mp4" for name in names for label in ("run", "walk")))
    with pytest.raises(
        InputError, match=rf"{names[1]}/ holds folders, as a split does: rename it to train, val or test"
    ):
        list_videos(root, FOLDER)
    for label in ("test", "Training"):  # a class of that name
        assert columns(list_videos(touch(tmp_path / label, f"{label}/1.mp4"), FOLDER), "label") == [(label,)]
    below = touch(tmp_path / "below", "train/training/session/1.mp4")
    assert columns(list_videos(below, FOLDER), "label", "split") == [("training", "train")]


def test_images_of_several_kinds_of_one_video_are_refused(tmp_path):
    kinds = [f"a/v{i}/{kind}/{j}.jpg" for i in range(2) for kind in ("rgb", "flow") for j in range(3)]
    with pytest.raises(InputError, match=r"a/v0 has images of several kinds \(flow, rgb\)"):
        list_videos(touch(tmp_path / "v", *kinds), recipe("frames"))
    one = touch(tmp_path / "w", *(name for name in kinds if "rgb" in name))
    assert len(list_videos(one, recipe("frames")).found) == 2
    (tmp_path / "v/annotations.csv").write_text("path,label\na/v0/rgb,a\na/v1/rgb,b\n")
    listing = list_videos(tmp_path / "v", recipe("frames"))
    assert [row["label"] for row in listing.found if not row["problem"]] == ["a", "b"]


def test_a_table_in_a_class_folder_is_no_list_of_all(tmp_path):
    root = touch(tmp_path / "v", "run/1.mp4", "walk/1.mp4")
    (root / "run/annotations.csv").write_text("path,label\n1.mp4,sprint\n")
    assert columns(list_videos(root, FOLDER), "label") == [("run",), ("walk",)]
    assert columns(list_videos(root, recipe("folder")), "label") == [("run",), ("walk",)]


@pytest.mark.parametrize(
    ("header", "unread"), [("path,label,subset", "subset"), ("path,label,begin,stop,split", "begin, stop")]
)
def test_columns_that_nothing_reads_are_named(tmp_path, caplog, header, unread):
    table = tmp_path / "annotations.CSV"
    table.write_text(f"{header}\n1.mp4,run{',1' * (header.count(',') - 2)},{'train' if 'split' in header else ''}\n")
    list_videos(touch(tmp_path / "v", "1.mp4"), recipe("folder"), annotations=table)
    assert f"columns that are not read: {unread}; known are path, label, labels, start" in caplog.text


def test_a_list_in_another_form_is_refused(tmp_path):
    table = tmp_path / "l.tsv"
    table.write_text("path\tlabel\n1.mp4\trun\n")
    with pytest.raises(InputError, match=r"l\.tsv: expected a list with a header, \.csv, or of objects, \.json"):
        list_videos(touch(tmp_path / "v", "1.mp4"), recipe("folder"), annotations=table)


def test_labels_are_the_same_however_they_are_typed(tmp_path):
    composed, apart = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    for folder in (composed, apart):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{len(folder)}.mp4").touch()
    found = list_videos(tmp_path, recipe("folder")).found
    assert [row["label"] for row in found] == [composed, composed]


def test_an_open_quote_does_not_swallow_the_list(tmp_path):
    (tmp_path / "v0.mp4").touch()
    (tmp_path / "annotations.csv").write_text('path,label\nv0.mp4,"run\nv1.mp4,run\n')
    with pytest.raises(InputError, match=r"annotations\.csv: not a readable list \(unexpected end of data"):
        list_videos(tmp_path, recipe("folder"))
