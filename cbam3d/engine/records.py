"""What a run writes while it trains: tables by epoch and by step, and the list of skipped files."""

import csv
import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cbam3d.errors import InputError
from cbam3d.files import atomic_write

logger = logging.getLogger(__name__)


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write JSON, whole or not at all."""
    with atomic_write(path) as unfinished:
        unfinished.write_text(json.dumps(content, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Iterable[Any]]) -> None:
    """Write CSV, whole or not at all; names of files may hold bytes that are not text."""
    with (
        atomic_write(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        csv.writer(file).writerows(rows)


class EpochTable:
    """`metrics.csv`: one row per epoch. Columns that a row lacks stay empty.

    Args:
        path: the file.
        last_epoch: rows after this epoch are dropped, as a resumed run writes them again.
    """

    def __init__(self, path: Path, last_epoch: int) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = []
        if path.exists() and last_epoch > 0:
            with open(path, newline="") as file:
                self.rows = [row for row in csv.DictReader(file) if int(row["epoch"]) <= last_epoch]

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        names = list(dict.fromkeys(name for row in self.rows for name in row))
        with atomic_write(self.path) as unfinished:
            _write_rows(unfinished, names, self.rows)

    def column(self, name: str) -> tuple[list[int], list[float]]:
        """Epochs and values of a column, where it has any."""
        filled = [row for row in self.rows if row.get(name) not in (None, "")]
        return [int(row["epoch"]) for row in filled], [float(row[name]) for row in filled]


class StepTable:
    """`steps.csv`: one row every few steps, appended during training.

    Args:
        path: the file.
        last_step: rows after this step are dropped, as a resumed run writes them again.
    """

    def __init__(self, path: Path, last_step: int) -> None:
        rows: list[dict[str, Any]] = []
        if path.exists() and last_step > 0:
            with open(path, newline="") as file:
                whole = [row for row in csv.DictReader(file) if all(row.values())]  # the last may be cut off
            rows = [row for row in whole if int(row["step"]) <= last_step]
        columns = ["step", "loss", "learning_rate"]
        with atomic_write(path) as unfinished:
            _write_rows(unfinished, columns, rows)
        self.file = open(path, "a", newline="")  # noqa: SIM115  # closed at the end of training
        self.writer = csv.DictWriter(self.file, columns)

    def add(self, row: dict[str, Any]) -> None:
        self.writer.writerow(row)
        self.file.flush()

    def __enter__(self) -> "StepTable":
        return self

    def __exit__(self, *error: object) -> None:
        self.file.close()


class SkippedFiles:
    """`skipped.csv`: path and reason of every file that could not be used, each once.

    Args:
        path: the file.
        limit: maximum number of files.
        writes: whether this process writes the file; the others only count.
        keeps: whether the file stays, so that it can be named.

    Raises:
        InputError: from `add`, when there are more than `limit`.
    """

    def __init__(self, path: Path, limit: int, writes: bool = True, keeps: bool = True) -> None:
        self.path, self.limit, self.writes, self.keeps = path, limit, writes, keeps
        self.reasons: dict[str, str] = {}
        if path.exists():  # of the run that is being continued
            with open(path, newline="", encoding="utf-8", errors="surrogateescape") as file:
                self.reasons = {row["path"]: row["reason"] for row in csv.DictReader(file)}

    def add(self, problems: list[tuple[str, str]]) -> None:
        """Record problems; each new file is reported once."""
        new = {name: reason for name, reason in problems if name not in self.reasons}
        self.reasons |= new
        if new and self.writes:
            for name, reason in new.items():
                logger.warning(f"skipped {name}: {reason}")
            write_csv(self.path, [("path", "reason"), *self.reasons.items()])
        if len(self.reasons) > self.limit:
            name, reason = next(iter(self.reasons.items()))
            listed = f"all are in {self.path}, the" if self.keeps else "the"
            raise InputError(
                f"{len(self.reasons)} files cannot be used, data.max_bad_videos is {self.limit}; "
                f"{listed} first is {name}: {reason}"
            )


def _write_rows(path: Path, columns: list[str], rows: list[dict[str, Any]]) -> None:
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, columns)
        writer.writeheader()
        writer.writerows(rows)
