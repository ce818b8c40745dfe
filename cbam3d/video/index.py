"""The packet tables of many videos, kept in one file: a clip is then read without reading the packets before it.

The file is memory-mapped, so that processes share it, and a video is found in it by its path. An entry holds size and
time of the video's file, and is not used once they have changed.
"""

import hashlib
import os
import zlib
from array import array
from collections.abc import Iterable
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cbam3d.errors import InputError
from cbam3d.storage import Part, Place, Source, is_local, written
from cbam3d.video.packets import PacketTable

INDEX_NAME = "manifest.packets"  # beside the table of the videos
_MAGIC = b"cbam3d packets 2"
_HEAD = len(_MAGIC) + 8
_MOST_BYTES = 1 << 28  # of a table


class Indexed(NamedTuple):
    """A video of an index."""

    path: str  # relative to the folder of the data
    num_bytes: int  # size of the file
    changed_ns: int  # its modification time
    packets: bytes  # see `encode`


def encode(table: PacketTable | None) -> bytes:
    """A packet table in few bytes; None, for a file whose packets do not determine its frames, in none."""
    if table is None:
        return b""
    ranks = np.array(table.ranks, "<i4")
    hidden = np.ones(len(ranks), np.uint8)
    hidden[np.array(table.places)] = 0
    times = np.array(table.times, "<i8")
    steps = np.diff(times)
    is_long = bool(len(steps)) and int(np.abs(steps).max()) >= 2**31
    flags = table.skippable + 2 * table.gaps + 4 * is_long + 8 * bool(hidden.any())
    parts = (
        np.array([flags, len(ranks), len(table.keyframes), times[0]], "<i8"),
        steps.astype("<i8" if is_long else "<i4"),
        ranks - np.arange(len(ranks), dtype="<i4"),
        np.array(table.keyframes, "<i4"),
        hidden if hidden.any() else hidden[:0],
    )
    pages = np.diff(np.array(table.pages, "<i4"), prepend=np.int32(0))
    return zlib.compress(b"".join(part.tobytes() for part in parts)) + zlib.compress(pages.tobytes())


def decode(packets: bytes, with_pages: bool = True) -> PacketTable | None:
    """Undo `encode`.

    Args:
        packets: what it made.
        with_pages: False leaves out what is needed for remote files only.

    Raises:
        ValueError: no such bytes.
    """
    if not packets:
        return None
    try:
        first_part, second_part = zlib.decompressobj(), zlib.decompressobj()
        unpacked = first_part.decompress(packets, _MOST_BYTES)
        steps_of_pages = second_part.decompress(first_part.unused_data, _MOST_BYTES) if with_pages else b""
    except zlib.error as error:
        raise ValueError(str(error)) from None
    flags, count, num_keyframes, first = np.frombuffer(unpacked, "<i8", 4).tolist()
    kinds = [("<i8" if flags & 4 else "<i4", count - 1), ("<i4", count), ("<i4", num_keyframes)]
    kinds += [("u1", count)] if flags & 8 else []
    arrays, at = [], 32
    for kind, length in kinds:
        arrays.append(np.frombuffer(unpacked, kind, length, at))
        at += arrays[-1].nbytes
    steps, ranks, keyframes, *hidden = arrays
    pages = np.cumsum(np.frombuffer(steps_of_pages, "<i4"), dtype="<i4")
    places, presented = np.arange(count, dtype="<i4"), np.full(count, -1, "<i4")
    ranks = ranks + places
    try:
        presented[ranks] = places
    except IndexError as error:
        raise ValueError(str(error)) from None
    if count < 1 or presented.min() < 0 or ranks.min() < 0:
        raise ValueError("not an order of packets")
    if num_keyframes < 1 or keyframes[0] != 0 or keyframes[-1] >= count or (np.diff(keyframes) < 1).any():
        raise ValueError("not places of keyframes")
    times = np.cumsum(np.concatenate([[first], steps]), dtype="<i8")
    shown = presented[hidden[0][presented] == 0] if hidden else presented
    return PacketTable(
        _array("i", shown),
        _array("i", ranks),
        _array("q", times),
        _array("i", keyframes),
        bool(flags & 1),
        bool(flags & 2),
        _array("i", pages) if len(pages) == count else (),
    )


def _array(kind: str, values: np.ndarray) -> "array[int]":
    """Whose elements, unlike those of NumPy's arrays, are Python's own integers."""
    made: array[int] = array(kind)
    made.frombytes(values.tobytes())
    return made


def write_index(path: Place, videos: Iterable[Indexed]) -> None:
    """Write an index atomically."""
    keyed = sorted((_key(video.path), video) for video in videos)
    keys, videos = np.array([key for key, _ in keyed], "<u8"), [video for _, video in keyed]
    sizes, times = (np.array([getattr(video, name) for video in videos], "<i8") for name in ("num_bytes", "changed_ns"))
    stops = np.cumsum([len(video.packets) for video in videos], dtype="<i8")
    with written(path) as unfinished, open(unfinished, "wb") as file:
        file.write(_MAGIC + len(videos).to_bytes(8, "little"))
        for column in (keys, sizes, times, stops):
            file.write(column.tobytes())
        for video in videos:
            file.write(video.packets)


class PacketIndex:
    """Reads an index. It may be passed to other processes, which open the file anew.

    Args:
        path: of the file.
        root: folder of the videos; None for that of the file.

    Raises:
        InputError: not an index.
    """

    def __init__(self, path: Path, root: Place | None = None) -> None:
        self.path, self.root = path, root
        self.prefix = os.path.join(path.parent if root is None else root, "")
        *_, stops = self._columns
        if len(stops) and len(self._packets) != stops[-1]:
            raise InputError(f"{path}: not a whole index of packets: remove it")

    def __reduce__(self) -> tuple[Any, ...]:
        return PacketIndex, (self.path, self.root)

    def look_up(self, source: Source, num_bytes: int, changed_ns: int) -> tuple[bool, PacketTable | None]:
        """Whether the index has a file as it is now, and its table.

        Only a file of this machine has a time of its own: archives and storage give others to what is copied there, so
        that files in them are known by their size, and by the times of their packets while they are decoded.
        """
        if isinstance(source, Part):
            name = source.name
        elif (text := os.fspath(source)).startswith(self.prefix):
            name = text[len(self.prefix) :]
        else:
            return False, None
        packets = self.packets(name, num_bytes, changed_ns if is_local(source) else None)
        try:
            return (False, None) if packets is None else (True, decode(packets, not is_local(source)))
        except ValueError:
            return False, None

    def packets(self, name: str, num_bytes: int, changed_ns: int | None) -> bytes | None:
        """The packets of a file as it was encoded, or None if the index does not have it as it is now.

        Args:
            name: path below the root.
            num_bytes: its size.
            changed_ns: its modification time; None for any.
        """
        keys, sizes, times, stops = self._columns
        key = np.uint64(_key(name))
        place = int(np.searchsorted(keys.view("<u8"), key))
        if place == len(keys) or keys.view("<u8")[place] != key or sizes[place] != num_bytes:
            return None
        if changed_ns is not None and times[place] != changed_ns:
            return None
        return self._packets[stops[place - 1] if place else 0 : stops[place]].tobytes()

    @cached_property
    def _file(self) -> np.ndarray:
        try:
            with open(self.path, "rb") as file:
                return np.frombuffer(mmap(file.fileno(), 0, access=ACCESS_READ), np.uint8)
        except (OSError, ValueError) as error:
            raise InputError(f"{self.path}: not a readable index of packets ({error})") from None

    @cached_property
    def _columns(self) -> np.ndarray:
        """Key, size, time, and where its packets end, of each video, (4, N); sorted by key."""
        head = self._file[:_HEAD].tobytes()
        count = int.from_bytes(head[len(_MAGIC) :], "little")
        if not head.startswith(_MAGIC) or len(self._file) < _HEAD + 32 * count:
            raise InputError(f"{self.path}: not an index of packets of this version: remove it")
        return self._file[_HEAD : _HEAD + 32 * count].view("<i8").reshape(4, count)

    @cached_property
    def _packets(self) -> np.ndarray:
        return self._file[_HEAD + self._columns.nbytes :]


def _key(path: str) -> int:
    """A number of 64 bits for a path."""
    return int.from_bytes(hashlib.blake2b(os.fsencode(path), digest_size=8).digest(), "little")
