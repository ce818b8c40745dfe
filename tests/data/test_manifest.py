import pickle

import numpy as np
import pytest

from cbam3d.data.manifest import TextColumn, from_rows, read_manifest, write_manifest
from cbam3d.errors import InputError

NAMES = ["b", "", "ü", "a\udcff", "b"]  # the fourth is a file name that is no UTF-8


def rows():
    base = {"group": "g", "split": "", "num_frames": 9, "fps": 29.97, "width": 320, "height": 240}
    base |= {"duration_seconds": 0.3, "problem": ""}
    return [
        {**base, "path": 'a/ü, "quoted".mp4', "label": "a"},
        {**base, "path": "b/x.mp4", "label": "b", "num_frames": 0, "problem": "empty file"},
    ]


def test_written_and_read_again(tmp_path):
    table = from_rows(rows())
    write_manifest(table, tmp_path / "manifest.csv")
    again = read_manifest(tmp_path / "manifest.csv")
    assert list(again.path) == ['a/ü, "quoted".mp4', "b/x.mp4"]
    assert list(again.problem) == ["", "empty file"]
    for name in ("label", "group", "split"):
        assert list(getattr(again, name)) == list(getattr(table, name))
    for name in ("num_frames", "fps", "width", "height", "duration_seconds"):
        np.testing.assert_array_equal(getattr(again, name), getattr(table, name))
    assert list(tmp_path.iterdir()) == [tmp_path / "manifest.csv"]


def test_selection_keeps_columns_together():
    table = from_rows(rows())
    usable = table.select(table.num_frames > 0)
    assert (list(usable.path), list(usable.label), len(usable)) == (['a/ü, "quoted".mp4'], ["a"], 1)


def test_an_empty_table_has_its_columns(tmp_path):
    write_manifest(from_rows([]), tmp_path / "m.csv")
    assert len(read_manifest(tmp_path / "m.csv")) == 0


def test_refusals(tmp_path):
    path = tmp_path / "m.csv"
    with pytest.raises(InputError, match="No such file"):
        read_manifest(path)
    path.write_text("path,label\nx,y\n")
    with pytest.raises(InputError, match="no column"):
        read_manifest(path)
    write_manifest(from_rows(rows()), path)
    good = path.read_text()
    path.write_text(good + good.splitlines()[1] + "\n")
    with pytest.raises(InputError, match="a video is listed twice"):
        read_manifest(path)
    path.write_text(good.replace("320", "0"))
    with pytest.raises(InputError, match="no width or height"):
        read_manifest(path)
    path.write_text("\ufeff" + good, encoding="utf-8")
    assert len(read_manifest(path)) == 2
    path.write_text(good.replace(",9,", ",nine,"))
    with pytest.raises(InputError, match=r"m\.csv: .*nine"):
        read_manifest(path)


@pytest.mark.parametrize(
    ("path", "label", "numbers", "reason"),
    [
        (
            "../x.mp4",
            "a",
            {},
            r"'\.\./x\.mp4' \(row 2\) has a path that leads out of the folder \(data\.allow_outside accepts it\)",
        ),
        ("a/../../x.mp4", "a", {}, "leads out"),
        ("/etc/x.mp4", "a", {}, "leads out"),
        ("a/x\0.mp4", "a", {}, "has a NUL in its path"),
        ("a/x.mp4", "", {}, "has no label"),
        ("a/x.mp4", "a", {"width": 10**12}, "is wider than 65,536 pixels"),
        ("a/x.mp4", "a", {"height": 10**12}, "is taller than 65,536 pixels"),
        ("a/x.mp4", "a", {"fps": np.nan}, "has an invalid frame rate"),
        ("a/x.mp4", "a", {"fps": np.inf}, "has an invalid frame rate"),
        ("a/x.mp4", "a", {"split": "tset"}, "has a split other than train, val, test and unused"),
    ],
)
def test_a_strangers_table_is_refused_by_name(tmp_path, path, label, numbers, reason):
    write_manifest(from_rows([{**rows()[0], "path": path, "label": label, **numbers}, rows()[1]]), tmp_path / "m.csv")
    with pytest.raises(InputError, match=reason) as error:
        read_manifest(tmp_path / "m.csv")
    assert "\n" not in str(error.value)
    if "leads out" in reason:
        assert read_manifest(tmp_path / "m.csv", allow_outside=True).path[0] == path


def test_names_with_dots_are_no_way_out(tmp_path):
    for name in ("C: sharp/x.mp4", "a..b/x.mp4", "..a/x.mp4", "a/x..mp4", "a/...mp4"):
        write_manifest(from_rows([{**rows()[0], "path": name}]), tmp_path / "m.csv")
        assert read_manifest(tmp_path / "m.csv").path[0] == name


def test_a_table_without_sizes_and_times_is_read(tmp_path):
    write_manifest(from_rows(rows()), tmp_path / "m.csv")
    old = [line.rpartition(",")[0].rpartition(",")[0] for line in (tmp_path / "m.csv").read_text().splitlines()]
    (tmp_path / "m.csv").write_text("\n".join(old))
    table = read_manifest(tmp_path / "m.csv")
    assert table.num_bytes.tolist() == table.changed_ns.tolist() == [0, 0]


def test_strings_come_back_whole_in_any_selection():
    column = TextColumn.of(NAMES)
    assert (list(column), len(column)) == (NAMES, 5)
    assert [column[i] for i in range(5)] == NAMES
    assert list(column.select(np.array([True, False, True, False, False]))) == ["b", "ü"]
    assert list(column.select(np.array([3, 0]))) == ["a\udcff", "b"]
    assert list(column.select(np.zeros(5, bool))) == []
    assert list(pickle.loads(pickle.dumps(column))) == NAMES


def test_codes_and_comparison():
    codes, names = TextColumn.of(NAMES).codes()
    assert names == sorted(set(NAMES))
    assert [names[code] for code in codes] == NAMES
    assert TextColumn.of(NAMES).equals("b").tolist() == [True, False, False, False, True]
    assert not TextColumn.of(NAMES).equals("c").any()
    assert TextColumn.of([]).codes()[1] == []


def test_a_million_rows_take_no_object_each():
    column = TextColumn.of(f"class {i % 7}/{i:07d}.mp4" for i in range(100_000))
    assert column.values.nbytes < 30 * 100_000  # 19 bytes of text and 4 of place a row


def test_names_that_are_no_text_are_found():
    assert TextColumn.of(["caf\udce9.avi", "cafe.avi"]).equals("caf\udce9.avi").tolist() == [True, False]


def test_a_frame_that_would_fill_the_memory_is_refused(tmp_path):
    write_manifest(from_rows([{**rows()[0], "width": 65536, "height": 1}]), tmp_path / "manifest.csv")
    with pytest.raises(InputError, match="one side that is more than 32 times the other"):
        read_manifest(tmp_path / "manifest.csv")
