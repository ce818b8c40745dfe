"""Recipes: a data set is a folder with a `recipe.yaml` and no code.

    kind: video                     # or image, or frames: a video is a folder of numbered images
    patterns: ["{label}/v_{name}_g{group}_c{clip}.avi"]
    group: "{label}_g{group}"       # the source of a clip; never divided between splits
    test_groups:                    # split number -> values of the field {group} that are held out
      1: ["01", "02"]
    classes: [Archery, Biking]      # default: the labels found
    flip_keeps_label: true          # default: unknown
    torchvision: CIFAR10            # for images that torchvision can download
    fps: 12                         # of frames, which do not tell; default: unknown
    video: "{name}"                 # a video's name in the annotation lists; default: its path
    annotations:                    # how the lists are read, see annotations.py
      files: ["{split}.csv"]
      video: "{youtube_id}"
      label: "{label}"              # or labels: several, with "|" between them
      start: "{time_start}"         # of a part of the video, and its end, in seconds
      end: "{time_end}"
      split: "{split}"
      splits: {train: train, validate: val}

A pattern is a path below the root with fields in braces: `{label}`, `{split}` (train, val, test), `{group}`
and `{clip}` (no "/", "_" or "."), `{name}` (anything), `{ext}`.
"""

import math
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from string import Formatter
from typing import Any, Literal

from cbam3d.data.annotations import Annotations, one_spelling, without_suffix
from cbam3d.errors import InputError, unknown
from cbam3d.files import load_mapping

SPLITS = ("train", "val", "test")
_OTHER_NAMES = {"training", "valid", "validation", "validate", "dev", "testing", *SPLITS}  # in any case
_FIELDS = {
    "label": r"[^/]+",
    "split": "|".join(SPLITS),
    "group": r"[^/_.]+",
    "clip": r"[^/_.]+",
    "name": r".+",
    "ext": r"[^/.]+",
}


@dataclass(frozen=True)
class Recipe:
    """A data set's properties; see the module docstring for the keys."""

    name: str
    kind: Literal["video", "image", "frames"]
    patterns: list[str] = field(default_factory=list)
    group: str | None = None
    test_groups: dict[int, list[str]] = field(default_factory=dict)
    classes: list[str] | None = None
    flip_keeps_label: bool | None = None
    torchvision: str | None = None
    fps: float = 0.0
    video: str | None = None
    annotations: Annotations | None = None

    @property
    def item(self) -> str:
        """What a row is: a video or an image."""
        return "image" if self.kind == "image" else "video"

    @property
    def lists_have_labels(self) -> bool:
        """Whether the annotation lists contain labels."""
        return self.annotations is not None and bool(self.annotations.label or self.annotations.labels)

    @property
    def lists_have_numbers(self) -> bool:
        """Whether the lists define several numbered splits."""
        return self.annotations is not None and any("{number}" in name for name in self.annotations.files)

    @cached_property
    def _regexes(self) -> list[re.Pattern[str]]:
        return [_regex(pattern) for pattern in self.patterns]

    def match(self, path: str) -> dict[str, str] | None:
        """The fields of a path relative to the root, by the first pattern that matches, a label in its one spelling;
        None if none does."""
        for regex in self._regexes:
            if match := regex.fullmatch(path):
                fields = match.groupdict()
                if fields.get("label"):
                    fields["label"] = one_spelling(fields["label"])
                return fields
        return None

    def refuse_split_as_label(self, root: object, path: str) -> None:
        """Raise InputError where a folder of classes has a split's name in a form that is not known: each such folder
        would be a class.

        Args:
            root: for the message.
            path: below it.
        """
        fields = self.match(path) or {}
        label = fields.get("label") or ""
        if fields.get("split") or label in (self.classes or ()):
            return
        if label.lower() in _OTHER_NAMES and "/" in path.partition(f"{label}/")[2]:
            raise InputError(f"{root}: {label}/ holds folders, as a split does: rename it to train, val or test")

    def video_of(self, path: str, fields: dict[str, str] | None, listed: Collection[str]) -> str:
        """Name in the lists of the video at a path with these fields; without its folders where only that is there;
        empty if no pattern matched."""
        if self.video is None:
            return without_suffix(path)
        name = "" if fields is None else without_suffix(self.video.format(**fields))
        base = name.rpartition("/")[2]
        return base if name not in listed and base in listed else name


def load_recipe(folder: Path) -> Recipe:
    """Read FOLDER/recipe.yaml; the recipe takes the folder's name.

    Raises:
        InputError: an unknown key, or a missing or malformed file.
    """
    path = folder / "recipe.yaml"
    facts = load_mapping(path, "recipe")
    _check_keys(str(path), facts, {f.name for f in fields(Recipe)} - {"name"})
    if facts.get("kind") not in ("video", "image", "frames"):
        raise InputError(f"{path}: kind must be video, image or frames, got {facts.get('kind')!r}")
    fps = facts.get("fps", 0.0)
    if not isinstance(fps, (int, float)) or not 0 <= fps < math.inf or (fps and facts["kind"] != "frames"):
        raise InputError(f"{path}: fps is a number of frames a second, for kind frames, got {fps!r}")
    patterns = facts.get("patterns")
    if not isinstance(patterns, list) or not patterns:
        raise InputError(f"{path}: patterns must be a list, got {patterns!r}")
    lists = facts.get("annotations", {})
    if not isinstance(lists, dict):
        raise InputError(f"{path}: annotations must be a mapping, got {lists!r}")
    for key, texts in (("patterns", patterns), ("classes", facts.get("classes") or [])):
        _check_texts(f"{path}: {key}", texts)
        if len(set(texts)) < len(texts):
            raise InputError(f"{path}: {key} has an entry twice")
    test_groups = facts.get("test_groups", {})
    if not isinstance(test_groups, dict):
        raise InputError(f"{path}: test_groups must be a mapping, of numbers of splits to groups, got {test_groups!r}")
    for number, groups in test_groups.items():
        if not isinstance(number, int):
            raise InputError(f"{path}: test_groups: {number!r} is not the number of a split")
        _check_texts(f"{path}: test_groups: {number}", groups)
    _check_templates(str(path), facts, ("group", "video"))
    for pattern in patterns:
        named = re.findall(r"\{(\w+)\}", pattern)
        if len(set(named)) < len(named):
            raise InputError(f"{path}: {pattern!r} has a field twice")
        if odd := [name for name in named if name not in _FIELDS]:
            raise InputError(f"{path}: {pattern!r}: " + unknown("field", odd[0], _FIELDS))
        if "label" not in named and not (lists.get("label") or lists.get("labels")):
            raise InputError(f"{path}: {pattern!r} has no {{label}}")
        for key in ("group", "video"):
            if missing := set(re.findall(r"\{(\w+)\}", facts.get(key) or "")) - set(named):
                raise InputError(f"{path}: {key} names {missing.pop()!r}, which is not in {pattern!r}")
    if "annotations" in facts:
        where = f"{path}: annotations"
        _check_keys(where, lists, {f.name for f in fields(Annotations)})
        for key in ("files", "columns"):
            _check_texts(f"{where}: {key}", lists.get(key) or [])
        _check_templates(where, lists, [key for key in lists if key not in ("files", "columns", "splits", "remove")])
        if not isinstance(lists.get("remove", ""), str):
            raise InputError(f"{where}: remove must be text, got {lists['remove']!r}")
        splits = lists.get("splits", {})
        if not isinstance(splits, dict) or not set(map(str, splits.values())) <= {*SPLITS, "unused"}:
            raise InputError(f"{where}: splits must map names to train, val, test or unused, got {splits!r}")
        try:
            facts["annotations"] = Annotations(**facts["annotations"])
        except TypeError as error:
            raise InputError(f"{path}: annotations: {error}") from None
    return Recipe(name=folder.name, **facts)


def _check_texts(where: str, values: Any) -> None:
    if not isinstance(values, list):
        raise InputError(f"{where} must be a list, got {values!r}")
    for value in values:
        if not isinstance(value, str):
            raise InputError(f"{where}: {value!r} is not text: put it in quotes")


def _check_templates(where: str, facts: Mapping[str, Any], keys: Iterable[str]) -> None:
    """Raise InputError for what is no text with {fields}."""
    for key in keys:
        value = facts.get(key)
        if value is None:
            continue
        try:
            list(Formatter().parse(value))
        except (TypeError, ValueError):
            raise InputError(f"{where}: {key} must be text with {{fields}}, got {value!r}") from None


def _check_keys(where: str, given: Iterable[str], known: set[str]) -> None:
    for key in given:
        if key not in known:
            raise InputError(f"{where}: {unknown('key', key, known)}")


def _regex(pattern: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", pattern)
    return re.compile(
        "".join(f"(?P<{p}>{_FIELDS[p]})" if i % 2 else re.escape(p) for i, p in enumerate(parts)), re.DOTALL
    )
