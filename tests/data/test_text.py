import pickle

import numpy as np

from cbam3d.data.text import TextColumn

NAMES = ["b", "", "ü", "a\udcff", "b"]  # the fourth is a file name that is no UTF-8


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
