"""The table of a data set's videos: one row a file, kept as columns (no Python object a row)."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np

from cbam3d.errors import InputError

_TEXT = ("path", "label", "group", "split", "problem")


@dataclass(frozen=True)
class Manifest:
    """Columns of equal length. Text is UTF-8 bytes; sizes are in pixels, of the upright picture.

    A row with `num_frames` 0 cannot be used, and its `problem` says why. A row with frames and a problem is
    damaged, but used.
    """

    path: np.ndarray  # relative to the root, "/" between folders
    label: np.ndarray
    group: np.ndarray
    split: np.ndarray  # train, val, test or empty
    num_frames: np.ndarray
    fps: np.ndarray
    width: np.ndarray
    height: np.ndarray
    duration_seconds: np.ndarray
    problem: np.ndarray

    def __len__(self) -> int:
        return len(self.path)

    def select(self, rows: np.ndarray) -> "Manifest":
        """The table of these rows: a boolean mask, or row numbers."""
        return Manifest(**{f.name: getattr(self, f.name)[rows] for f in fields(self)})

    def with_split(self, split: Sequence[str]) -> "Manifest":
        """The same table with another split column."""
        return replace(self, split=_column("split", split))

    def text(self, column: str) -> list[str]:
        """A text column as strings."""
        return [value.decode(errors="surrogateescape") for value in getattr(self, column)]

    def labels(self) -> list[str]:
        """The labels that occur, sorted."""
        return [label.decode(errors="surrogateescape") for label in np.unique(self.label)]


def from_rows(rows: Iterable[Mapping[str, Any]]) -> Manifest:
    """A table from mappings that have all of its columns."""
    rows = list(rows)
    return Manifest(**{f.name: _column(f.name, [row[f.name] for row in rows]) for f in fields(Manifest)})


def write_manifest(manifest: Manifest, path: Path) -> None:
    """Write CSV; the file appears under its name only when it is complete."""
    unfinished = path.with_name(path.name + ".part")
    names = [f.name for f in fields(Manifest)]
    columns = [manifest.text(name) if name in _TEXT else getattr(manifest, name).tolist() for name in names]
    with open(unfinished, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(names)
        writer.writerows(zip(*columns, strict=True))
    unfinished.replace(path)


def read_manifest(path: Path) -> Manifest:
    """Read what `write_manifest` wrote.

    Raises:
        InputError: a missing file, a missing column, or a value that is no number where one belongs.
    """
    names = [f.name for f in fields(Manifest)]
    try:
        with open(path, newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
            reader = csv.reader(file)
            header = next(reader, [])
            missing = [name for name in names if name not in header]
            if missing:
                raise InputError(f"{path}: no column {', '.join(missing)}")
            columns = dict(zip(header, zip(*reader, strict=True), strict=False))
        table = Manifest(**{name: _column(name, columns.get(name, ())) for name in names})
    except InputError:
        raise
    except (OSError, ValueError, csv.Error) as error:
        raise InputError(f"{path}: not a readable manifest ({error})") from None
    if len(np.unique(table.path)) != len(table):
        raise InputError(f"{path}: a video is listed twice")
    if ((table.num_frames > 0) & ((table.width < 1) | (table.height < 1))).any():
        raise InputError(f"{path}: a video with frames has no width or height")
    return table


def _column(name: str, values: Sequence[Any]) -> np.ndarray:
    if name in _TEXT:
        encoded = [value.encode(errors="surrogateescape") for value in values]  # a file's name may be no UTF-8
        return np.array(encoded or [b""], dtype=bytes)[: len(values)]
    return np.array(values, dtype=np.float64 if name in ("fps", "duration_seconds") else np.int64)
