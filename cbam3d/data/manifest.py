"""The table of a data set's videos: one row per file, or per part of one, stored as columns without a Python object per
row, so that loader workers share its memory."""

import os
from collections.abc import Iterable, Iterator, Mapping
from csv import Error as csv_error
from csv import reader as csv_reader
from csv import writer as csv_writer
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import csv

from cbam3d.data.recipe import SPLITS
from cbam3d.errors import InputError
from cbam3d.storage import Part, Place, Source, is_url, local_copy, place_of, written
from cbam3d.video.pixels import MOST_ELONGATED

TABLE_NAME = "manifest.csv"  # in the folder of the videos, or of a run
JOURNAL_NAME, DUPLICATES_NAME = ".manifest.unfinished", "duplicates.csv"  # beside it

_NUMBERS: dict[str, tuple[type, pa.DataType]] = {
    **dict.fromkeys(("num_frames", "width", "height", "num_bytes", "changed_ns", "offset"), (np.int64, pa.int64())),
    **dict.fromkeys(("first_frame", "file_frames"), (np.int64, pa.int64())),
    **dict.fromkeys(("fps", "duration_seconds", "start", "end"), (np.float64, pa.float64())),
}
_OF_SHARDS = ("shard", "offset")
_OF_PARTS = ("start", "end", "first_frame", "file_frames")
_OPTIONAL = ("num_bytes", "changed_ns", *_OF_SHARDS, *_OF_PARTS)
_LARGEST_SIDE = 1 << 16  # pixels
# a path outside its folder
_OUTSIDE = r"(^|[/\\])\.\.([/\\]|$)|^[/\\]|^[A-Za-z]:" if os.name == "nt" else r"(^|/)\.\.(/|$)|^/"
_OUTSIDE += r"|^[A-Za-z][A-Za-z0-9+.-]+://"


class TextColumn:
    """Immutable strings in an Arrow array; file names that are not UTF-8 are preserved.

    Args:
        values: of type binary, without nulls.
    """

    def __init__(self, values: pa.Array) -> None:  # pyright: ignore[reportUnknownParameterType]  (pyarrow has no types)
        self.values = values

    @classmethod
    def of(cls, values: Iterable[str]) -> "TextColumn":
        """Create a column from strings."""
        return cls(pa.array([value.encode(errors="surrogateescape") for value in values], pa.binary()))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> str:
        return _text(self.values[row].as_py())

    def __iter__(self) -> Iterator[str]:
        return map(_text, self.values.to_pylist())

    def select(self, rows: np.ndarray) -> "TextColumn":
        """Select rows by a boolean mask or row numbers."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return TextColumn(self.values.take(pa.array(rows)))

    def equals(self, value: str) -> np.ndarray:
        """Boolean mask of the rows equal to a string."""
        found = pc.call_function("equal", [self.values, value.encode(errors="surrogateescape")])
        return found.to_numpy(zero_copy_only=False)

    def matches(self, pattern: str) -> np.ndarray:
        """Boolean mask of the rows in which a regular expression (RE2) is found."""
        found = pc.call_function("match_substring_regex", [self.values], pc.MatchSubstringOptions(pattern))
        return found.to_numpy(zero_copy_only=False)

    def codes(self) -> tuple[np.ndarray, list[str]]:
        """Index of each row's string in the sorted list of unique strings, int64, and that list."""
        encoded = self.values.dictionary_encode()
        found = [_text(value) for value in encoded.dictionary.to_pylist()]
        names = sorted(found)
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[name] for name in found], np.int64)[encoded.indices.to_numpy()], names


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")


@dataclass(frozen=True)
class Manifest:
    """Columns of equal length; sizes are in pixels, of the upright frame.

    A row with `num_frames` 0 is unusable, and its `problem` states why. A row with frames and a problem is
    damaged, but used. A row with an `end` is a part of its file, and `num_frames` are those of the part.
    """

    path: TextColumn  # relative to the root, "/" between folders
    label: TextColumn  # where there are several, with "|" between them; empty for none of them
    group: TextColumn
    split: TextColumn  # train, val, test, unused or empty
    num_frames: np.ndarray
    fps: np.ndarray
    width: np.ndarray
    height: np.ndarray
    duration_seconds: np.ndarray
    problem: TextColumn
    num_bytes: np.ndarray  # file size and modification time; 0 in older tables
    changed_ns: np.ndarray
    shard: TextColumn  # the archive that holds the file, empty for none, and where in it the file begins, bytes
    offset: np.ndarray
    start: np.ndarray  # seconds, of a part; 0 for whole files
    end: np.ndarray
    first_frame: np.ndarray  # of a part, and the number of frames in its file
    file_frames: np.ndarray
    several: bool = False  # whether a video may have several labels, or none: the column is then called labels

    def __len__(self) -> int:
        return len(self.path)

    @property
    def usable(self) -> np.ndarray:
        """Boolean mask of the rows with frames."""
        return self.num_frames > 0

    @property
    def parts(self) -> np.ndarray:
        """Boolean mask of the rows that are parts of files."""
        return self.end > 0

    def name(self, row: int) -> str:
        """The name of a row: its path, with the times of a part as https://www.w3.org/TR/media-frags/ writes them."""
        times = f"#t={_seconds(self.start[row])},{_seconds(self.end[row])}" if self.end[row] > 0 else ""
        return self.path[row] + times

    def names(self) -> list[str]:
        """Of every row."""
        return [self.name(row) for row in range(len(self))] if self.parts.any() else list(self.path)

    def first_of_files(self) -> np.ndarray:
        """The first row of every file."""
        return np.sort(np.unique(self.path.codes()[0], return_index=True)[1])

    def labels(self) -> list[list[str]]:
        """Of every row, sorted."""
        codes, found = self.label.codes()
        sets = [[name for name in text.split("|") if name] if self.several else [text] for text in found]
        return [sets[code] for code in codes]

    def classes(self) -> list[str]:
        """The labels of the usable rows, sorted."""
        return sorted({name for own in self.select(self.usable).labels() for name in own})

    def select(self, rows: np.ndarray) -> "Manifest":
        """Select rows by a boolean mask or row numbers."""
        chosen = {}
        for name in _COLUMNS:
            column = getattr(self, name)
            chosen[name] = column.select(rows) if isinstance(column, TextColumn) else column[rows]
        return Manifest(**chosen, several=self.several)

    def with_split(self, split: Iterable[str]) -> "Manifest":
        """The same table with another split column."""
        return replace(self, split=TextColumn.of(split))

    def source(self, root: Place, row: int) -> Source:
        """What the file of a row is read from."""
        name, shard = self.path[row], self.shard[row]
        if shard:
            return Part(root / shard, int(self.offset[row]), int(self.num_bytes[row]), name)
        return place_of(name) if is_url(name) else root / name

    def rows_of_parts(self) -> list[list[int]]:
        """The rows of each file that has parts."""
        files: dict[str, list[int]] = {}
        for row in np.flatnonzero(self.parts).tolist():
            files.setdefault(self.path[row], []).append(row)
        return list(files.values())

    def rows(self) -> Iterator[dict[str, Any]]:
        """One mapping per row."""
        columns = [_plain(getattr(self, name)) for name in _COLUMNS]
        for values in zip(*columns, strict=True):
            yield dict(zip(_COLUMNS, values, strict=True))


_COLUMNS = {f.name: f.type is TextColumn for f in fields(Manifest) if f.name != "several"}  # whether it holds text


def from_rows(rows: Iterable[Mapping[str, Any]], several: bool = False) -> Manifest:
    """Create a table from mappings with all of its columns; those of shards, parts, file size and time are optional."""
    rows = list(rows)
    columns = {}
    for name, is_text in _COLUMNS.items():
        default = "" if is_text else 0
        values = [row.get(name, default) if name in _OPTIONAL else row[name] for row in rows]
        columns[name] = TextColumn.of(values) if is_text else np.array(values, _NUMBERS[name][0])
    return Manifest(**columns, several=several)


def write_manifest(manifest: Manifest, path: Place) -> None:
    """Write CSV atomically."""
    unused = _OF_SHARDS if manifest.shard.equals("").all() else ()
    unused = unused if manifest.parts.any() else (*unused, *_OF_PARTS)
    names = [name for name in _COLUMNS if name not in unused]
    columns = [_plain(getattr(manifest, name)) for name in names]
    with (
        written(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv_writer(file)
        writer.writerow(["labels" if name == "label" and manifest.several else name for name in names])
        writer.writerows(zip(*columns, strict=True))


def read_manifest(path: Place, allow_outside: bool = False) -> Manifest:
    """Read what `write_manifest` wrote.

    Args:
        path: the table, which may be at a URL.
        allow_outside: accept rows whose path is absolute or leaves the folder by "..".

    Raises:
        InputError: a missing file or column, a non-numeric value in a numeric column, a path outside the folder, a
            usable video without a label, a part that ends before it starts, or an implausible frame size.
    """
    with local_copy(path) as file:
        header = _header(file)
        several = "labels" in header and "label" not in header
        read = _read_columns(file, path, header, several)
    columns: dict[str, Any] = {name: np.zeros(len(read), _NUMBERS[name][0]) for name in _OPTIONAL if not _COLUMNS[name]}
    columns["shard"] = TextColumn(pa.repeat(pa.scalar(b"", pa.binary()), len(read)))
    for name, is_text in _COLUMNS.items():
        given = "labels" if name == "label" and several else name
        if given in read.column_names:
            column = read.column(given).combine_chunks()
            columns[name] = TextColumn(column) if is_text else column.to_numpy().copy()
    table = Manifest(**columns, several=several)
    times = np.isfinite(table.start) & np.isfinite(table.end) & (table.start >= 0) & (table.end >= 0)
    _check(path, table, ~times, "has a start or end that is no time")
    _check(path, table, (table.end <= table.start) & ((table.start > 0) | table.parts), "ends before it starts")
    beyond = (table.first_frame < 0) | (table.first_frame + table.num_frames > table.file_frames)
    _check(path, table, table.parts & table.usable & beyond, "lies beyond the frames of its file")
    if len(table.path.values.unique()) != len(table) and len(set(table.names())) != len(table):
        raise InputError(f"{path}: a video is listed twice")
    if (table.usable & ((table.width < 1) | (table.height < 1))).any():
        raise InputError(f"{path}: a video with frames has no width or height")
    _check(path, table, table.width > _LARGEST_SIDE, f"is wider than {_LARGEST_SIDE:,} pixels")
    _check(path, table, table.height > _LARGEST_SIDE, f"is taller than {_LARGEST_SIDE:,} pixels")
    shorter, longer = np.minimum(table.width, table.height), np.maximum(table.width, table.height)
    elongated = table.usable & (longer > MOST_ELONGATED * shorter)
    _check(path, table, elongated, f"has one side that is more than {MOST_ELONGATED} times the other")
    _check(path, table, ~(np.isfinite(table.fps) & (table.fps >= 0)), "has an invalid frame rate")
    known = table.split.equals("")
    for split in (*SPLITS, "unused"):
        known |= table.split.equals(split)
    _check(path, table, ~known, "has a split other than train, val, test and unused")
    _check(path, table, table.usable & table.label.equals("") & (not several), "has no label")
    _check(path, table, table.path.matches(r"\x00") | table.shard.matches(r"\x00"), "has a NUL in its path")
    nowhere = (table.offset < 0) | (table.num_bytes < 1)
    _check(path, table, nowhere & ~table.shard.equals(""), "has no place in its shard")
    if not allow_outside:
        way_out = "has a path that leads out of the folder (data.allow_outside accepts it)"
        _check(path, table, table.path.matches(_OUTSIDE) | table.shard.matches(_OUTSIDE), way_out)
    return table


def _read_columns(file: Path, path: Place, header: list[str], several: bool) -> Any:
    kinds = {name: pa.binary() if is_text else _NUMBERS[name][1] for name, is_text in _COLUMNS.items()}
    with_parts = any(name in header for name in _OF_PARTS)
    for name in set(_OPTIONAL) - set(header):
        if name not in _OF_PARTS or not with_parts:
            del kinds[name]
    if several:
        kinds["labels"] = kinds.pop("label")
    options = csv.ConvertOptions(column_types=kinds, include_columns=list(kinds), null_values=[])
    try:
        return csv.read_csv(file, parse_options=csv.ParseOptions(newlines_in_values=True), convert_options=options)
    except KeyError as error:
        raise InputError(f"{path}: no column {error.args[0]}") from None
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"{path}: not a readable manifest ({' '.join(str(error).split())})") from None


def _header(path: Path) -> list[str]:
    try:
        with open(path, newline="", encoding="utf-8", errors="replace") as file:
            return next(csv_reader(file), [])
    except (OSError, csv_error):
        return []  # pyarrow reports the error


def _check(path: Place, table: Manifest, bad: np.ndarray, what: str) -> None:
    if bad.any():
        row = int(bad.argmax())
        raise InputError(f"{path}: {table.name(row)!r} (row {row + 2}) {what}")


def _seconds(time: float) -> str:
    """To the millisecond."""
    return f"{time:.3f}".rstrip("0").rstrip(".")


def _plain(column: TextColumn | np.ndarray) -> list[Any]:
    return list(column) if isinstance(column, TextColumn) else column.tolist()
