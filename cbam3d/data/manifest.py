"""The table of a data set's videos: one row per file, stored as columns without a Python object per row, so that
loader workers share its memory."""

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

TABLE_NAME = "manifest.csv"  # in the folder of the videos

_NUMBERS: dict[str, tuple[type, pa.DataType]] = {
    **dict.fromkeys(("num_frames", "width", "height", "num_bytes", "changed_ns", "offset"), (np.int64, pa.int64())),
    **dict.fromkeys(("fps", "duration_seconds"), (np.float64, pa.float64())),
}
_OPTIONAL = ("num_bytes", "changed_ns", "shard", "offset")
_OF_SHARDS = ("shard", "offset")
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
        return pc.call_function("equal", [self.values, value.encode()]).to_numpy(zero_copy_only=False)

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
    damaged, but used.
    """

    path: TextColumn  # relative to the root, "/" between folders
    label: TextColumn
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

    def __len__(self) -> int:
        return len(self.path)

    @property
    def usable(self) -> np.ndarray:
        """Boolean mask of the rows with frames."""
        return self.num_frames > 0

    def select(self, rows: np.ndarray) -> "Manifest":
        """Select rows by a boolean mask or row numbers."""
        chosen = {}
        for f in fields(self):
            column = getattr(self, f.name)
            chosen[f.name] = column.select(rows) if isinstance(column, TextColumn) else column[rows]
        return Manifest(**chosen)

    def with_split(self, split: Iterable[str]) -> "Manifest":
        """The same table with another split column."""
        return replace(self, split=TextColumn.of(split))

    def source(self, root: Place, row: int) -> Source:
        """What the file of a row is read from."""
        name, shard = self.path[row], self.shard[row]
        if shard:
            return Part(root / shard, int(self.offset[row]), int(self.num_bytes[row]), name)
        return place_of(name) if is_url(name) else root / name

    def rows(self) -> Iterator[dict[str, Any]]:
        """One mapping per row."""
        columns = [_plain(getattr(self, f.name)) for f in fields(self)]
        for values in zip(*columns, strict=True):
            yield dict(zip((f.name for f in fields(self)), values, strict=True))


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Manifest:
    """Create a table from mappings with all of its columns; file size and time are optional."""
    rows = list(rows)
    columns = {}
    for f in fields(Manifest):
        default = "" if f.type is TextColumn else 0
        values = [row.get(f.name, default) if f.name in _OPTIONAL else row[f.name] for row in rows]
        columns[f.name] = TextColumn.of(values) if f.type is TextColumn else np.array(values, _NUMBERS[f.name][0])
    return Manifest(**columns)


def write_manifest(manifest: Manifest, path: Place) -> None:
    """Write CSV atomically."""
    names = [f.name for f in fields(Manifest)]
    if manifest.shard.equals("").all():
        names = [name for name in names if name not in _OF_SHARDS]
    columns = [_plain(getattr(manifest, name)) for name in names]
    with (
        written(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv_writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))


def read_manifest(path: Place, allow_outside: bool = False) -> Manifest:
    """Read what `write_manifest` wrote.

    Args:
        path: the table, which may be at a URL.
        allow_outside: accept rows whose path is absolute or leaves the folder by "..".

    Raises:
        InputError: a missing file or column, a non-numeric value in a numeric column, a path outside the folder, a
            usable video without a label, or an implausible frame size.
    """
    with local_copy(path) as file:
        read = _read_columns(file, path)
    columns: dict[str, Any] = {name: np.zeros(len(read), np.int64) for name in _OPTIONAL}
    columns["shard"] = TextColumn(pa.repeat(pa.scalar(b"", pa.binary()), len(read)))
    for f in (f for f in fields(Manifest) if f.name in read.column_names):
        column = read.column(f.name).combine_chunks()
        columns[f.name] = TextColumn(column) if f.type is TextColumn else column.to_numpy().copy()
    table = Manifest(**columns)
    if len(table.path.values.unique()) != len(table):
        raise InputError(f"{path}: a video is listed twice")
    if (table.usable & ((table.width < 1) | (table.height < 1))).any():
        raise InputError(f"{path}: a video with frames has no width or height")
    _check(path, table, table.width > _LARGEST_SIDE, f"is wider than {_LARGEST_SIDE:,} pixels")
    _check(path, table, table.height > _LARGEST_SIDE, f"is taller than {_LARGEST_SIDE:,} pixels")
    _check(path, table, ~(np.isfinite(table.fps) & (table.fps >= 0)), "has an invalid frame rate")
    known = table.split.equals("")
    for split in (*SPLITS, "unused"):
        known |= table.split.equals(split)
    _check(path, table, ~known, "has a split other than train, val, test and unused")
    _check(path, table, table.usable & table.label.equals(""), "has no label")
    _check(path, table, table.path.matches(r"\x00") | table.shard.matches(r"\x00"), "has a NUL in its path")
    nowhere = (table.offset < 0) | (table.num_bytes < 1)
    _check(path, table, nowhere & ~table.shard.equals(""), "has no place in its shard")
    if not allow_outside:
        way_out = "has a path that leads out of the folder (data.allow_outside accepts it)"
        _check(path, table, table.path.matches(_OUTSIDE) | table.shard.matches(_OUTSIDE), way_out)
    return table


def _read_columns(file: Path, path: Place) -> Any:
    kinds = {f.name: pa.binary() if f.type is TextColumn else _NUMBERS[f.name][1] for f in fields(Manifest)}
    for name in set(_OPTIONAL) - set(_header(file)):
        del kinds[name]
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
        raise InputError(f"{path}: {table.path[int(bad.argmax())]!r} {what}")


def _plain(column: TextColumn | np.ndarray) -> list[Any]:
    return list(column) if isinstance(column, TextColumn) else column.tolist()
