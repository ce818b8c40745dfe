"""Which videos are held out. Videos of one group are never torn apart."""

import hashlib
from collections import Counter, defaultdict

from cbam3d.data.manifest import Manifest
from cbam3d.data.recipe import Recipe
from cbam3d.errors import InputError


def assign_splits(manifest: Manifest, recipe: Recipe, split: int, test_fraction: float) -> Manifest:
    """Fill the split column: by the recipe's test groups, else as the table has it, else by a fraction of the groups.

    Args:
        split: number of the recipe's split.
        test_fraction: share of the videos held out where nothing else decides, 0 … 1.

    Raises:
        InputError: a split that the recipe does not have, a table with splits in some rows only, or a group
            with videos in training and in test.
    """
    given = manifest.text("split")
    if recipe.test_groups:
        if split not in recipe.test_groups:
            known = ", ".join(map(str, recipe.test_groups))
            raise InputError(f"data.split must be one of {known} for {recipe.name}, got {split}")
        held_out = set(recipe.test_groups[split])
        matches = [recipe.match(path) or {} for path in manifest.text("path")]
        given = ["test" if match.get("group") in held_out else "train" for match in matches]
    elif not any(given):
        given = split_by_group(manifest.text("label"), manifest.text("group"), test_fraction)
    elif not all(given):
        raise InputError(f"{given.count('')} of {len(given)} videos have no split, the others have one")
    _check_leaks(manifest.text("group"), given)
    return manifest.with_split(given)


def split_by_group(labels: list[str], groups: list[str], test_fraction: float) -> list[str]:
    """Hold out whole groups, so that each class comes near to `test_fraction` of its videos.

    The groups are visited in an order that depends on their names alone; one is held out where this brings
    the classes nearer to their shares. The same names give the same split on every machine.
    """
    content: dict[str, Counter[str]] = defaultdict(Counter)
    for label, group in zip(labels, groups, strict=True):
        content[group][label] += 1
    wanted = {label: test_fraction * count for label, count in Counter(labels).items()}
    held_out = set()
    for group in sorted(content, key=lambda name: hashlib.sha256(name.encode()).digest()):
        gain = sum(abs(wanted[label]) - abs(wanted[label] - n) for label, n in content[group].items())
        if gain > 0:
            held_out.add(group)
            for label, n in content[group].items():
                wanted[label] -= n
    return ["test" if group in held_out else "train" for group in groups]


def _check_leaks(groups: list[str], splits: list[str]) -> None:
    train = {group for group, split in zip(groups, splits, strict=True) if split == "train"}
    held_out = {group for group, split in zip(groups, splits, strict=True) if split != "train"}
    if leaks := sorted(train & held_out):
        names = ", ".join(leaks[:3]) + (", …" if len(leaks) > 3 else "")
        raise InputError(f"{len(leaks)} groups have videos in training and held out: {names}")


def rows_of(manifest: Manifest, split: str) -> Manifest:
    """The usable videos of a split."""
    return manifest.select((manifest.split == split.encode()) & (manifest.num_frames > 0))


def class_names(manifest: Manifest, recipe: Recipe) -> list[str]:
    """The classes in the order of their numbers: the recipe's, or those found, sorted."""
    return recipe.classes or manifest.select(manifest.num_frames > 0).labels()
