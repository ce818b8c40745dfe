from dataclasses import replace

import numpy as np
import pytest

from cbam3d.config.bundled import bundled
from cbam3d.data.annotations import Annotation
from cbam3d.data.manifest import from_rows
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.split import assign_splits, class_names, divided_files, leaking_groups, rows_of, split_by_group
from cbam3d.errors import InputError


def table(entries):
    """Rows from (path, label, group, split)."""
    numbers = {"num_frames": 9, "fps": 25.0, "width": 8, "height": 8, "duration_seconds": 1.0, "problem": ""}
    names = ("path", "label", "group", "split")
    return from_rows([{**dict(zip(names, entry, strict=True)), **numbers} for entry in entries])


FOLDER = Recipe("folder", "video", ["{label}/{name}"])


@pytest.mark.parametrize("split", [1, 2, 3])
def test_ucf101_holds_out_its_groups(split):
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    paths = [f"Archery/v_Archery_g{g:02d}_c01.avi" for g in range(1, 26)]
    manifest = table([(path, "Archery", f"Archery_g{i}", "") for i, path in enumerate(paths)])
    held_out = np.flatnonzero(assign_splits(manifest, ucf101, split, 0.2).split.equals("test")) + 1
    assert held_out.tolist() == list(range(7 * split - 6, 7 * split + 1))


def test_a_split_that_does_not_exist():
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    with pytest.raises(InputError, match="one of 1, 2, 3 for ucf101, got 4"):
        assign_splits(table([("Archery/v_Archery_g01_c01.avi", "Archery", "g", "")]), ucf101, 4, 0.2)


def test_groups_are_not_torn_apart_and_classes_get_their_share():
    rng = np.random.default_rng(0)
    labels = rng.choice(["a", "b", "c"], 600).tolist()
    groups = [f"{label}{rng.integers(25)}" for label in labels]
    splits = split_by_group([[label] for label in labels], groups, 0.2)
    for group in set(groups):
        assert len({s for s, g in zip(splits, groups, strict=True) if g == group}) == 1
    for label in "abc":
        held_out = [s == "test" for s, name in zip(splits, labels, strict=True) if name == label]
        assert 0.17 < np.mean(held_out) < 0.23


def test_the_split_depends_on_names_alone():
    labels, groups = ["a"] * 50 + ["b"] * 50, [f"g{i}" for i in range(100)]
    order = np.random.default_rng(0).permutation(100)
    splits = split_by_group([[label] for label in labels], groups, 0.3)
    shuffled = split_by_group([[labels[i]] for i in order], [groups[i] for i in order], 0.3)
    assert shuffled == [splits[i] for i in order]
    assert splits.count("test") == 30


def test_splits_in_the_paths_are_kept():
    manifest = table([("a", "a", "1", "train"), ("b", "b", "2", "val")])
    assert list(assign_splits(manifest, FOLDER, 1, 0.5).split) == ["train", "val"]


def test_leaks_and_half_filled_tables_are_refused():
    leaking = table([("a", "a", "same", "train"), ("b", "a", "same", "test"), ("c", "a", "other", "val")])
    assert leaking_groups(leaking) == ["same"]
    assert leaking_groups(leaking.select(np.array([0, 2]))) == []
    with pytest.raises(InputError, match="1 of 2 videos have no split"):
        assign_splits(table([("a", "a", "1", "train"), ("b", "a", "2", "")]), FOLDER, 1, 0.5)


def test_class_names_are_the_recipes_or_those_found():
    manifest = table([("x", "ü", "1", ""), ("y", "b", "2", ""), ("z", "b", "3", "")])
    assert class_names(manifest, FOLDER) == ["b", "ü"]
    assert class_names(manifest, Recipe("r", "video", classes=["z", "b"])) == ["z", "b"]


def test_the_official_lists_are_held_against_the_groups():
    ucf101 = load_recipe(bundled("datasets") / "ucf101")
    paths = [f"Archery/v_Archery_g{g:02d}_c01.avi" for g in (1, 9)]
    manifest = table([(path, "Archery", path, "") for path in paths])
    listed = {paths[0][:-4]: [Annotation(split="test")], paths[1][:-4]: [Annotation(split="train")]}
    assert list(assign_splits(manifest, ucf101, 1, 0.2, listed).split) == ["test", "train"]
    with pytest.raises(InputError, match=r"g01_c01\.avi: in train by its group, but in test by the official list"):
        assign_splits(manifest, ucf101, 2, 0.2, listed)


def test_numbered_lists_decide_and_the_rest_is_unused():
    hmdb51 = load_recipe(bundled("datasets") / "hmdb51")
    manifest = table([(f"wave/{i}.avi", "wave", str(i), "") for i in range(4)])
    stray = table([("stray.mp4", "", "stray", "")])
    assert list(assign_splits(stray, hmdb51, 1, 0.2, {"wave/0": [Annotation("wave", "train")]}).split) == ["unused"]
    listed = {
        "wave/0": [Annotation("wave", "train")],
        "wave/1": [Annotation("wave", "test")],
        "wave/2": [Annotation("wave", "unused")],
    }
    nested = table([("x/wave/0.avi", "wave", "0", "")])  # found by its name alone
    by_name = replace(hmdb51, patterns=["{name}.{ext}"], video="{name}")
    assert list(assign_splits(nested, by_name, 1, 0.2, {"0": [Annotation("wave", "test")]}).split) == ["test"]
    divided = assign_splits(manifest, hmdb51, 1, 0.2, listed)
    assert list(divided.split) == ["train", "test", "unused", "unused"]
    assert list(rows_of(divided, "train").path) == ["wave/0.avi"]


def test_files_with_parts_in_several_splits_are_found():
    numbers = {
        "group": "g",
        "label": "a",
        "num_frames": 9,
        "fps": 25.0,
        "width": 8,
        "height": 8,
        "duration_seconds": 2.0,
    }
    numbers |= {"problem": "", "first_frame": 0, "file_frames": 99}
    parts = [("b", "train"), ("b", "test"), ("a", "train"), ("a", "val"), ("c", "train"), ("c", "train"), ("d", "test")]
    parts += [("e", "train"), ("e", "unused")]
    times = [{"start": float(i), "end": i + 1.0} for i in range(len(parts))]
    rows = [{**numbers, "path": p, "split": s, **time} for (p, s), time in zip(parts, times, strict=True)]
    assert divided_files(from_rows(rows)) == ["a", "b"]
