import pytest

from cbam3d.config.bundled import bundled
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.errors import InputError


def recipe(*patterns: str) -> Recipe:
    return Recipe("test", "video", list(patterns))


@pytest.mark.parametrize(
    ("pattern", "path", "fields"),
    [
        (
            "{label}/v_{name}_g{group}_c{clip}.avi",
            "HandstandPushups/v_HandStandPushups_g01_c04.avi",
            {"label": "HandstandPushups", "name": "HandStandPushups", "group": "01", "clip": "04"},
        ),
        ("{label}/{name}", "a b/c d/e.mp4", {"label": "a b", "name": "c d/e.mp4"}),
        ("{split}/{label}/{name}", "val/x/y.mp4", {"split": "val", "label": "x", "name": "y.mp4"}),
        ("{split}/{label}/{name}", "valid/x/y.mp4", None),
        ("{label}/v_{name}_g{group}_c{clip}.avi", "Archery/v_Archery_g01.avi", None),
        ("{label}/v_{name}_g{group}_c{clip}.avi", "UCF-101/Archery/v_Archery_g01_c01.avi", None),
        ("{label}/{name}.avi", "a/bxavi", None),  # a dot is a dot
    ],
)
def test_match(pattern, path, fields):
    assert recipe(pattern).match(path) == fields


def test_the_first_pattern_that_fits_decides():
    both = recipe("{split}/{label}/{name}", "{label}/{name}")
    assert both.match("train/a/x.mp4") == {"split": "train", "label": "a", "name": "x.mp4"}
    assert both.match("a/x.mp4") == {"label": "a", "name": "x.mp4"}


def test_every_bundled_recipe_loads():
    folders = sorted(path.parent for path in bundled("datasets").glob("*/recipe.yaml"))
    assert {"ucf101", "folder", "motion", "cifar10", "image_folder"} <= {folder.name for folder in folders}
    for folder in folders:
        assert load_recipe(folder).kind in ("video", "image", "frames")


def test_ucf101_has_its_classes_and_splits():
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    assert ucf101.classes is not None
    assert len(ucf101.classes) == len(set(ucf101.classes)) == 101
    assert ucf101.classes[0] == "ApplyEyeMakeup"
    assert ucf101.classes[100] == "YoYo"
    assert {number: len(groups) for number, groups in ucf101.test_groups.items()} == {1: 7, 2: 7, 3: 7}
    assert len({group for groups in ucf101.test_groups.values() for group in groups}) == 21


LISTS = "kind: video\npatterns: ['{label}/{name}']\nannotations:\n  video: '{path}'\n  "


def test_an_unknown_key_names_the_nearest(tmp_path):
    for text, message in (
        ('kind: video\npatterns: ["{label}/{name}"]\nannotations: list.csv', "annotations must be a mapping"),
        ("- a list", "a recipe holds keys with values, not a list"),
        ("kind: vidoe", "kind must be video, image or frames, got 'vidoe'"),
        ("kind: video\npatterns: '{label}/{name}'", "patterns must be a list"),
        ("kind: video\npatterns: ['{name}']", r"has no \{label\}"),
        ("kind: video\npatterns: ['{label}/{nam}']", "unknown field 'nam': did you mean 'name'"),
        ("kind: video\npatterns: ['{label}/{name}']\ngroup: '{group}'", "group names 'group'"),
        ("kind: video\npatterns: ['{label}/{name}']\nvideo: '{nam}'", "video names 'nam'"),
        ("kind: video\npatterns: ['{label}/{name}_{name}']", "has a field twice"),
        ("kind: video\npatterns: [1]", "patterns: 1 is not text: put it in quotes"),
        ("kind: image\npatterns: ['{label}/{name}']\nclasses: [0, 1]", "classes: 0 is not text"),
        ("kind: video\npatterns: ['{label}/{name}']\ntest_groups: [a]", "test_groups must be a mapping"),
        ("kind: video\npatterns: ['{label}/{name}']\ntest_groups: {1: [01]}", "test_groups: 1: 1 is not text"),
        ("kind: video\npatterns: ['{name}']\nannotations: [a.csv]", "annotations must be a mapping"),
        (f"{LISTS}files: '{{split}}.csv'", "annotations: files must be a list"),
        (f"{LISTS}files: [a.csv]\n  columns: a b", "annotations: columns must be a list"),
        (
            f"{LISTS}files: [a.csv]\n  splits: {{a: training}}",
            "splits must map names to train, val, test or unused",
        ),
        (f"{LISTS}files: [a.csv]\n  splits: [train]", "splits must map names"),
        (f"{LISTS}files: [a.csv]\n  remove: 5", "remove must be text"),
        (f"{LISTS}files: [a.csv]\n  label: '{{label'", "annotations: label must be text with {fields}"),
        ("kind: video\npatterns: ['{label}/{name}']\ngroup: 5", "group must be text with {fields}, got 5"),
        ("kind: video\npatterns: ['{label}/{name}']\nclasses: [a, b, a]", "classes has an entry twice"),
        ("kind: video\npatterns: ['{label}/{name}']\ntest_groups: {'1': [a]}", "'1' is not the number of a split"),
    ):
        (tmp_path / "recipe.yaml").write_text(text)
        with pytest.raises(InputError, match=message):
            load_recipe(tmp_path)
    (tmp_path / "recipe.yaml").write_text("kind: video\npattern: ['{label}/{name}']\n")
    with pytest.raises(InputError, match=r"recipe\.yaml: unknown key 'pattern': did you mean 'patterns'"):
        load_recipe(tmp_path)
    with pytest.raises(InputError, match="not a readable recipe"):
        load_recipe(tmp_path / "nowhere")
