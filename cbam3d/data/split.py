"""Which videos are held out. A group is never divided between splits."""

import hashlib
import math
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

import numpy as np

from cbam3d.data.annotations import Annotation
from cbam3d.data.background import BACKGROUND
from cbam3d.data.manifest import Manifest
from cbam3d.data.recipe import Recipe
from cbam3d.errors import InputError


def assign_splits(
    manifest: Manifest,
    recipe: Recipe,
    split: int,
    test_fraction: float,
    listed: dict[str, list[Annotation]] | None = None,
) -> Manifest:
    """Fill the split column: from the recipe's test groups or numbered lists, else from the table, else by holding
    out a fraction of the groups.

    Args:
        split: number of the recipe's split.
        test_fraction: fraction of the videos to hold out if nothing else decides, 0 … 1.
        listed: annotations for that split; checked against the recipe's test groups if both are present.

    Raises:
        InputError: a split that the recipe does not define, lists that contradict its groups, or a table with
            splits in some rows only.
    """
    if recipe.test_groups:
        return manifest.with_split(_by_test_groups(manifest, recipe, split, listed or {}))
    if recipe.lists_have_numbers and listed:
        found = (_said(manifest, row, recipe, listed) for row in range(len(manifest)))
        return manifest.with_split(["unused" if said is None else said.split for said in found])
    open_rows = manifest.split.equals("")
    if open_rows.all():
        return manifest.with_split(split_by_group(manifest.labels(), list(manifest.group), test_fraction))
    if (lost := manifest.usable & open_rows).any():
        first = manifest.path[int(np.flatnonzero(lost)[0])]
        text = f"{lost.sum()} of {len(manifest)} videos have no split, the others have one"
        raise InputError(f"{text}; the first is {first}")
    return manifest


def _said(manifest: Manifest, row: int, recipe: Recipe, listed: dict[str, list[Annotation]]) -> Annotation | None:
    """What the lists say of a row of the table."""
    path = manifest.path[row]
    found = listed.get(recipe.video_of(path, recipe.match(path), listed), [])
    start, end = manifest.start[row], manifest.end[row]
    return next((one for one in found if one.start == start and one.end in (end, math.inf)), None)


def _by_test_groups(manifest: Manifest, recipe: Recipe, split: int, listed: dict[str, list[Annotation]]) -> list[str]:
    if split not in recipe.test_groups:
        known = ", ".join(map(str, recipe.test_groups))
        raise InputError(f"data.split must be one of {known} for {recipe.name}, got {split}")
    held_out = set(recipe.test_groups[split])
    splits = []
    for row, path in enumerate(manifest.path):
        splits.append("test" if (recipe.match(path) or {}).get("group") in held_out else "train")
        said = _said(manifest, row, recipe, listed)
        if said is not None and said.split != splits[-1]:
            raise InputError(f"{path}: in {splits[-1]} by its group, but in {said.split} by the official list")
    return splits


def split_by_group(labels: Sequence[Sequence[str]], groups: list[str], test_fraction: float) -> list[str]:
    """Hold out whole groups, so that about `test_fraction` of each class's videos are held out.

    Args:
        labels: of each video, all of them.
        groups: of each video.
        test_fraction: 0 … 1.

    Groups are visited in an order that depends only on their names; one is held out if this brings the
    classes closer to that fraction. The same names give the same split on every machine.
    """
    content: dict[str, Counter[str]] = defaultdict(Counter)
    for own, group in zip(labels, groups, strict=True):
        content[group].update(own)
    wanted = {label: test_fraction * count for label, count in Counter(chain.from_iterable(labels)).items()}
    held_out = set()
    for group in sorted(content, key=lambda name: hashlib.sha256(name.encode(errors="surrogateescape")).digest()):
        gain = sum(abs(wanted[label]) - abs(wanted[label] - n) for label, n in content[group].items())
        if gain > 0:
            held_out.add(group)
            for label, n in content[group].items():
                wanted[label] -= n
    return ["test" if group in held_out else "train" for group in groups]


def leaking_groups(manifest: Manifest) -> list[str]:
    """The sorted groups with videos both in train and in val or test."""
    codes, names = manifest.group.codes()
    held_out = manifest.split.equals("val") | manifest.split.equals("test")
    return [names[i] for i in np.intersect1d(codes[manifest.split.equals("train")], codes[held_out])]


def divided_files(manifest: Manifest) -> list[str]:
    """The sorted files with usable parts in several splits."""
    used = manifest.select(manifest.usable & ~manifest.split.equals("unused"))
    (files, names), (splits, _) = used.path.codes(), used.split.codes()
    of_files = np.unique(np.stack([files, splits]), axis=1)[0]
    return sorted(names[i] for i in np.flatnonzero(np.bincount(of_files, minlength=len(names)) > 1))


def rows_of(manifest: Manifest, split: str) -> Manifest:
    """The usable videos of a split."""
    return manifest.select(manifest.split.equals(split) & manifest.usable)


def class_names(manifest: Manifest, recipe: Recipe) -> list[str]:
    """The classes in index order: the recipe's, or those found, sorted."""
    found = manifest.classes()
    if recipe.classes is None:
        return found
    return [*recipe.classes, *({BACKGROUND} & set(found) - set(recipe.classes))]
