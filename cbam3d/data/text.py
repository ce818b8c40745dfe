"""A column of text without a Python object a row, so that a loader's workers share its memory."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


class TextColumn:
    """Immutable strings in an Arrow array. Bytes of a file name that are no UTF-8 survive.

    Args:
        values: of type binary, without nulls.
    """

    def __init__(self, values: pa.Array) -> None:  # pyright: ignore[reportUnknownParameterType]  (pyarrow has no types)
        self.values = values

    @classmethod
    def of(cls, values: Iterable[str]) -> "TextColumn":
        """The column of these strings."""
        return cls(pa.array([value.encode(errors="surrogateescape") for value in values], pa.binary()))

    def __len__(self) -> int:
        return len(self.values)

    def __getitem__(self, row: int) -> str:
        return _text(self.values[row].as_py())

    def __iter__(self) -> Iterator[str]:
        return map(_text, self.values.to_pylist())

    def select(self, rows: np.ndarray) -> "TextColumn":
        """The column of these rows: a boolean mask, or row numbers."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        return TextColumn(self.values.take(pa.array(rows)))

    def equals(self, value: str) -> np.ndarray:
        """Which rows hold this string, bool."""
        return pc.call_function("equal", [self.values, value.encode()]).to_numpy(zero_copy_only=False)

    def matches(self, pattern: str) -> np.ndarray:
        """Which rows have a part that a regular expression (RE2) finds, bool."""
        found = pc.call_function("match_substring_regex", [self.values], pc.MatchSubstringOptions(pattern))
        return found.to_numpy(zero_copy_only=False)

    def codes(self) -> tuple[np.ndarray, list[str]]:
        """Each row's place in the list of the strings that occur, int64, and that list, sorted."""
        encoded = self.values.dictionary_encode()
        found = [_text(value) for value in encoded.dictionary.to_pylist()]
        names = sorted(found)
        places = {name: place for place, name in enumerate(names)}
        return np.array([places[name] for name in found], np.int64)[encoded.indices.to_numpy()], names


def _text(value: bytes) -> str:
    return value.decode(errors="surrogateescape")
