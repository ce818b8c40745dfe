"""A data set's annotation lists: the label and split of each video."""

import csv
import json
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from cbam3d.errors import InputError, unknown
from cbam3d.video.container import VIDEO_SUFFIXES


@dataclass(frozen=True)
class Annotations:
    """How a recipe's annotation lists are named and read.

    Args:
        files: file names of the lists, with fields in braces: `{split}`, `{number}` (of a split), others.
        columns: column names of whitespace-separated lists without a header; CSV has a header, JSON has keys.
        video: template of a row's video, filled from the fields of the file name and the row's columns. It is
            compared with the recipe's `video` of a path, both without suffix.
        label: template of the row's label.
        split: template of the row's split.
        group: template of the row's group.
        splits: split name in the lists -> train, val, test or unused. Files of other splits are skipped.
        remove: characters to remove from labels.
    """

    files: list[str]
    video: str
    columns: list[str] = field(default_factory=list)
    label: str = ""
    split: str = ""
    group: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    remove: str = ""


@dataclass(frozen=True)
class Annotation:
    """The annotations of one video; empty where the lists have none."""

    label: str = ""
    split: str = ""
    group: str = ""

    def differences(self, other: "Annotation") -> str:
        """Describe the fields in which two rows differ."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self))
        return ", ".join(f"the {name} {one!r} and {two!r}" for name, one, two in pairs if one != two)


def read_annotations(place: Path, facts: Annotations, number: int) -> dict[str, Annotation]:
    """Read the annotations by video; {} if the folder contains no lists.

    Args:
        place: the folder of the lists, or one list.
        facts: how they are named and read.
        number: of the split, if there are several.

    Raises:
        InputError: an unreadable list, or one that contradicts another.
    """
    rows: dict[str, Annotation] = {}
    needed = re.findall(r"\{(\w+)", facts.video + facts.label)
    for path, named in _find(place, facts.files, number):
        if facts.splits and named.get("split", next(iter(facts.splits))) not in facts.splits:
            continue  # labels.json beside train.json
        for row in _read(path, facts.columns):
            columns = {key.strip(): value for key, value in row.items() if key}
            values = columns | named
            if missing := [name for name in needed if name not in values]:
                raise InputError(f"{path}: no column {missing[0]!r}, there are {', '.join(columns)}")
            split = facts.split.format_map(_Known(values))
            if facts.splits and split:
                if split not in facts.splits:
                    raise InputError(f"{path}: {unknown('split', split, facts.splits)}")
                split = facts.splits[split]
            label = facts.label.format_map(_Known(values)).translate({ord(c): None for c in facts.remove})
            video = facts.video.format_map(_Known(values))
            if not video:
                raise InputError(f"{path}: a row names no video ({facts.video})")
            said = Annotation(label, split, facts.group.format_map(_Known(values)))
            known = rows.setdefault(without_suffix(video.removeprefix("./")), said)
            if known != said:
                raise InputError(f"{path}: {video} is listed twice, with {known.differences(said)}")
    return rows


def without_suffix(video: str) -> str:
    """Strip the suffix of a video (.avi, .mp4, …) from a path."""
    stem, suffix = os.path.splitext(video)
    return stem if suffix.lower() in VIDEO_SUFFIXES else video


class _Known(dict[str, Any]):
    """The fields of a row; missing ones are empty."""

    def __missing__(self, key: str) -> str:
        return ""


def _find(place: Path, names: list[str], number: int) -> Iterator[tuple[Path, dict[str, str]]]:
    patterns = [_pattern(name) for name in names]
    if place.is_file():
        match = next(filter(None, (pattern.fullmatch(place.name) for pattern in patterns)), None)
        yield place, match.groupdict() if match else {}
        return
    for path in sorted(place.iterdir()):
        match = next(filter(None, (pattern.fullmatch(path.name) for pattern in patterns)), None)
        if match and path.is_file() and int(match.groupdict().get("number", number)) == number:
            yield path, match.groupdict()


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", name)
    fields = {"number": r"0*\d+"}
    texts = [f"(?P<{p}>{fields.get(p, '.+')})" if i % 2 else re.escape(p) for i, p in enumerate(parts)]
    return re.compile("".join(texts))


def _read(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            if path.suffix == ".json":
                rows = json.load(file)
                if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                    raise InputError(f"{path}: expected a list of objects")
                yield from rows
            elif path.suffix == ".csv":
                yield from csv.DictReader(file, restval="", skipinitialspace=True)
            else:
                yield from (dict(zip(columns, line.split(), strict=False)) for line in file if line.strip())
    except InputError:
        raise
    except (OSError, csv.Error, ValueError, RecursionError) as error:  # ValueError: JSON, text decoding
        raise InputError(f"{path}: not a readable list ({' '.join(str(error).split())})") from None
