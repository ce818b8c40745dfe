import pytest

from cbam3d.data import digits
from cbam3d.errors import InputError
from cbam3d.runs import rendered
from cbam3d.runs.rendered import render_missing


def test_only_what_is_missing_is_rendered(tmp_path, monkeypatch):
    rendered_to = []

    def render(root):
        rendered_to.append(root)
        for index in range(3):
            (root / "train" / "0").mkdir(parents=True, exist_ok=True)
            (root / "train" / "0" / f"{index}.png").touch()
        return 3

    monkeypatch.setitem(rendered._RENDERED, "digits", rendered._Rendered(render, ["train"], 3, "images"))
    assert not render_missing("folder", tmp_path)
    assert render_missing("digits", tmp_path / "new")
    assert render_missing("digits", tmp_path / "new")
    assert rendered_to == [tmp_path / "new"]
    next((tmp_path / "new").rglob("*.png")).unlink()
    render_missing("digits", tmp_path / "new")
    assert len(rendered_to) == 2


def test_nothing_is_rendered_among_other_files(tmp_path):
    (tmp_path / "mine").mkdir()
    with pytest.raises(InputError, match="holds mine: digits is not rendered there"):
        render_missing("digits", tmp_path)


def test_the_numbers_are_those_of_the_data_sets():
    assert rendered._RENDERED["motion"].num_files == 800
    assert rendered._RENDERED["digits"].num_files == sum(digits.NUM_IMAGES.values()) == 12_000
