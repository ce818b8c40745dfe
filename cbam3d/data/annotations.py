"""A data set's annotation lists: label and split of each video, or of each part of it."""

import csv
import json
import logging
import math
import os
import re
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from cbam3d.errors import InputError, unknown
from cbam3d.files import is_hidden
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.timing import EXACT

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Annotations:
    """How a recipe's annotation lists are named and read.

    Args:
        files: file names of the lists, with fields in braces: `{split}`, `{number}` (of a split), others.
        columns: column names of whitespace-separated lists without a header; CSV has a header, JSON has keys.
        video: template of a row's video, filled from the fields of the file name and the row's columns. It is
            compared with the recipe's `video` of a path, both without suffix.
        label: template of the row's label.
        labels: template of the row's labels, where it may have several, with "|" between them, or as a list in JSON;
            used where the lists have the columns that it names, and no label.
        start: template of the time at which a row's part of the video starts, seconds; empty for the whole video.
        end: template of the time at which it ends; empty for the end of the video.
        split: template of the row's split.
        group: template of the row's group.
        splits: split name in the lists -> train, val, test or unused. Files of other splits are skipped.
        remove: characters to remove from labels.
    """

    files: list[str]
    video: str
    columns: list[str] = field(default_factory=list)
    label: str = ""
    labels: str = ""
    start: str = ""
    end: str = ""
    split: str = ""
    group: str = ""
    splits: dict[str, str] = field(default_factory=dict)
    remove: str = ""


@dataclass(frozen=True)
class Annotation:
    """The annotations of one video, or of a part of it; empty where the lists have none. A part has an end, infinite
    for that of the video. Several labels have "|" between them."""

    label: str = ""
    split: str = ""
    group: str = ""
    start: float = 0.0
    end: float = 0.0
    several: bool = False
    suffixes: frozenset[str] = field(default=frozenset(), compare=False)  # of its file, as the lists have it

    @property
    def names(self) -> list[str]:
        """Its labels."""
        return [name for name in (self.label.split("|") if self.several else [self.label]) if name]

    def differences(self, other: "Annotation") -> str:
        """Describe the fields in which two rows differ."""
        pairs = ((f.name, getattr(self, f.name), getattr(other, f.name)) for f in fields(self) if f.compare)
        return ", ".join(f"the {name} {one!r} and {two!r}" for name, one, two in pairs if one != two)


def read_annotations(place: Path, facts: Annotations, number: int) -> dict[str, list[Annotation]]:
    """Read the annotations by video, those of its parts by their times; {} if the folder contains no lists.

    Args:
        place: the folder of the lists, or one list.
        facts: how they are named and read.
        number: of the split, if there are several.

    Raises:
        InputError: an unreadable list, one that contradicts another, a part that ends before it starts, parts that
            overlap with different labels, or a list with a held-out label that it has for no training video.
    """
    found: dict[str, dict[tuple[float, float], _Row]] = {}
    suffixes: dict[str, set[str]] = defaultdict(set)
    for path, named in _find(place, facts, number):
        of_file: list[_Row] = []
        for line, row in enumerate(_read(path, facts.columns), 2 if path.suffix.lower() == ".csv" else 1):
            columns = {key.strip(): "" if value is None else value for key, value in row.items() if key}
            where = f"{path}, row {line}"
            if not of_file:
                _report_unread(path, facts, columns, named)
            video, said = _annotation(where, facts, columns, named)
            name = without_suffix(video.removeprefix("./"))
            suffixes[name] |= {suffix_of(video)} - {""}
            parts = found.setdefault(name, {})
            known = parts.setdefault((said.start, said.end), _Row(where, said))
            if known.said != said and said.several and replace(known.said, label=said.label) == said:
                both = "|".join(sorted({*known.said.names, *said.names}))  # a row for each label
                parts[said.start, said.end] = replace(known, said=replace(said, label=both))
            elif known.said != said:
                raise InputError(f"{where}: {video} is listed twice, with {known.said.differences(said)}")
            of_file.append(_Row(where, said))
        _refuse_untrained(of_file)
    for video, parts in found.items():
        if len(parts) > 1:
            _refuse_overlaps(video, sorted(parts.values(), key=lambda row: (row.said.start, row.said.end)))
    return {
        video: [replace(row.said, suffixes=frozenset(suffixes[video])) for _, row in sorted(parts.items())]
        for video, parts in found.items()
    }


@dataclass(frozen=True)
class _Row:
    """An annotation, and where it stands."""

    where: str
    said: Annotation


def _annotation(
    where: str, facts: Annotations, columns: dict[str, Any], named: dict[str, str]
) -> tuple[str, Annotation]:
    """What a row says, and of which video."""
    values = _Known(columns | named)
    several = _has(values, facts.labels) and not _has(values, facts.label)
    label = facts.labels if several else facts.label
    for name in re.findall(r"\{(\w+)", facts.video + label):
        if name not in values:
            raise InputError(f"{where}: no column {name!r}, there are {', '.join(columns)}")
    split = facts.split.format_map(values).strip()
    if facts.splits and split:
        if split not in facts.splits:
            raise InputError(f"{where}: {unknown('split', split, facts.splits)}")
        split = facts.splits[split]
    video = facts.video.format_map(values)
    if not video:
        raise InputError(f"{where}: names no video ({facts.video})")
    removed = {ord(c): None for c in facts.remove}
    if several:
        text = "|".join(one_spelling(name.translate(removed)) for name in _labels(where, values, label))
    else:
        text = one_spelling(label.format_map(values).translate(removed))
    start, end = (_time(where, getattr(facts, name).format_map(values), name) for name in ("start", "end"))
    group = one_spelling(facts.group.format_map(values))
    if start is None and end is None:
        return video, Annotation(text, split, group, several=several)
    start, end = start or 0.0, math.inf if end is None else end
    if end <= start:
        raise InputError(f"{where}: {video} ends at {end:g} s, before its start at {start:g} s")
    return video, Annotation(text, split, group, start, end, several)


def _report_unread(path: Path, facts: Annotations, columns: Collection[str], named: Collection[str]) -> None:
    """Warn of columns that nothing reads where others are missing: they may have other names here."""
    templates = [facts.video, facts.label, facts.labels, facts.start, facts.end, facts.split, facts.group]
    known = list(dict.fromkeys(re.findall(r"\{(\w+)", " ".join(templates))))
    missing = [name for name in known if name not in {*columns, *named}]
    if missing and (unread := [name for name in columns if name not in known]):
        logger.warning(f"{path}: columns that are not read: {', '.join(unread)}; known are {', '.join(known)}")


def _has(values: dict[str, Any], template: str) -> bool:
    return bool(template) and all(name in values for name in re.findall(r"\{(\w+)", template))


def _labels(where: str, values: dict[str, Any], template: str) -> list[str]:
    """Several labels, sorted: a list of JSON, or text with "|" between them."""
    names = re.findall(r"\{(\w+)\}", template)
    given = values[names[0]] if template == f"{{{names[0]}}}" else template.format_map(values)
    if isinstance(given, str) and given.lstrip().startswith("["):
        try:
            given = json.loads(given)
        except ValueError:
            raise InputError(f"{where}: no list of labels: {given}") from None
    if not isinstance(given, list):
        given = str(given).split("|")
    if odd := [name for name in given if not isinstance(name, str) or "|" in name]:
        raise InputError(f"{where}: no label: {odd[0]!r}")
    return sorted({name.strip() for name in given} - {""})


def _time(where: str, text: str, name: str) -> float | None:
    """Seconds; None where nothing is said."""
    if not text.strip():
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds < math.inf:
        raise InputError(f"{where}: the {name} is no time in seconds: {text!r}")
    return seconds


def _refuse_overlaps(video: str, rows: list[_Row]) -> None:
    """Raise InputError where a video has one label as a whole and others in parts; or two at once, where it may have
    one only."""
    for row in rows:
        if not row.said.end:
            raise InputError(f"{row.where}: {video} is listed as a whole, and in parts in {rows[-1].where}")
    latest = rows[0]
    for row in rows[1:]:
        if row.said.start < latest.said.end - EXACT and row.said.label != latest.said.label and not row.said.several:
            labels = f"{row.said.label!r} overlaps {latest.said.label!r} of {latest.where}"
            raise InputError(f"{row.where}: {video}: {labels}: name the column labels where both may hold")
        latest = max(latest, row, key=lambda row: row.said.end)


def _refuse_untrained(rows: list[_Row]) -> None:
    """Raise InputError for the first held-out video with a label that no training video of the same list has."""
    trained = {name for row in rows if row.said.split == "train" for name in row.said.names}
    for row in rows if trained else ():
        if row.said.split in ("val", "test") and (new := [name for name in row.said.names if name not in trained]):
            raise InputError(f"{row.where}: no training video has the label {new[0]!r}, which is in {row.said.split}")


def without_suffix(video: str) -> str:
    """Strip the suffix of a video (.avi, .mp4, …) from a path."""
    return video[: len(video) - len(suffix_of(video))]


def suffix_of(video: str) -> str:
    """The suffix of a video; empty where a path has none."""
    suffix = os.path.splitext(video)[1]
    return suffix if suffix.lower() in VIDEO_SUFFIXES else ""


def one_spelling(text: str) -> str:
    """The same label or group, however it was typed: without spaces around it, its accents composed."""
    return unicodedata.normalize("NFC", text).strip()


def csv_rows(path: Path) -> Iterator[dict[str, str]]:
    """The rows of a CSV file with a header; missing fields are empty.

    Raises:
        InputError: a row with more fields than the header.
        OSError, csv.Error, ValueError: an unreadable file.
    """
    with open(path, newline="", encoding="utf-8-sig") as file:
        for line, row in enumerate(csv.DictReader(file, restval="", skipinitialspace=True, strict=True), 2):
            if any(extra := row.pop(None, [])):  # type: ignore[call-overload]
                number = len(row) + len(extra)
                raise InputError(f"{path}, row {line}: {number} fields for {len(row)} columns: quote what has commas")
            yield row


class _Known(dict[str, Any]):
    """The fields of a row; missing ones are empty."""

    def __missing__(self, key: str) -> str:
        return ""


def _find(place: Path, facts: Annotations, number: int) -> Iterator[tuple[Path, dict[str, str]]]:
    """The lists and the fields of their names: those of a folder; or if it has none, of the folders in it, where names
    have fields, as official lists do.

    Raises:
        InputError: one list, which is of another number.
    """
    patterns = [_pattern(name) for name in facts.files]
    if place.is_file():
        match = next(filter(None, (pattern.fullmatch(place.name) for pattern in patterns)), None)
        named = match.groupdict() if match else {}
        if int(named.get("number", number)) != number:
            raise InputError(f"{place}: the list of split {int(named['number'])}, data.split is {number}")
        yield place, named
        return
    inner = [path for path in sorted(place.iterdir()) if path.is_dir() and not is_hidden(Path(path.name))]
    for folders in ([place], inner if any("{" in name for name in facts.files) else []):
        found: list[tuple[Path, dict[str, str]]] = []
        for path in (path for folder in folders for path in sorted(folder.iterdir())):
            match = next(filter(None, (pattern.fullmatch(path.name) for pattern in patterns)), None)
            named = match.groupdict() if match else {}
            if facts.splits and named.get("split", next(iter(facts.splits))) not in facts.splits:
                continue  # labels.json beside train.json
            if match and path.is_file() and int(named.get("number", number)) == number:
                found.append((path, named))
        yield from found
        if found:
            return


def _pattern(name: str) -> re.Pattern[str]:
    parts = re.split(r"\{(\w+)\}", name)
    fields = {"number": r"0*\d+"}
    texts = [f"(?P<{p}>{fields.get(p, '.+')})" if i % 2 else re.escape(p) for i, p in enumerate(parts)]
    return re.compile("".join(texts))


def _read(path: Path, columns: list[str]) -> Iterator[dict[str, Any]]:
    try:
        if path.suffix.lower() == ".csv":
            yield from csv_rows(path)
            return
        with open(path, encoding="utf-8-sig") as file:
            if path.suffix.lower() == ".json":
                rows = json.load(file)
                if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
                    raise InputError(f"{path}: expected a list of objects")
                yield from rows
            else:
                if not columns:
                    raise InputError(f"{path}: expected a list with a header, .csv, or of objects, .json")
                for line in filter(str.strip, file):
                    if len(fields := line.split()) > len(columns):
                        text = f"{len(fields)} fields for the columns {', '.join(columns)}"
                        raise InputError(f"{path}: {line.strip()!r} has {text}: a .csv may quote what has spaces")
                    yield dict(zip(columns, fields, strict=False))
    except InputError:
        raise
    except (OSError, csv.Error, ValueError, RecursionError) as error:  # ValueError: JSON, text decoding
        raise InputError(f"{path}: not a readable list ({' '.join(str(error).split())})") from None
