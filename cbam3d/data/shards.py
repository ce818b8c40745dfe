"""Videos of a data set in tar archives, some thousand in each: read here at random, by WebDataset in order.

Each video of an archive is three members with one number for a name: the file, its class number (`cls`), and what the
table has of it (`json`), as WebDataset (https://github.com/webdataset/webdataset) pairs them. The archives of a split
hold its videos in an order without meaning, the same for the same table.
"""

import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from cbam3d.data.manifest import Manifest, TextColumn
from cbam3d.errors import InputError
from cbam3d.storage import Place, local_copy, state_of, written

_SHARD = 1 << 29  # bytes, about
_BLOCK, _RECORD = tarfile.BLOCKSIZE, tarfile.RECORDSIZE
_SUFFIX = "bin"  # of a file without one

Progress = Callable[[Iterable[Any], int], Iterable[Any]]


def write_shards(
    root: Place,
    manifest: Manifest,
    classes: list[str],
    folder: Place,
    progress: Progress = lambda items, total: items,
) -> Manifest:
    """Write the usable videos of a table into archives; those that are there already, of the same size, are kept.

    Args:
        root: folder of the videos.
        manifest: their table, with its splits.
        classes: in index order.
        folder: of the archives.
        progress: wraps the iterable of archives, given it and their number.

    Returns: the table of the videos in the archives.

    Raises:
        InputError: a video that has changed since the table was written, or an archive that cannot be written.
    """
    table = manifest.select(manifest.usable)
    order = np.random.default_rng(0).permutation(len(table))
    rows = list(table.rows())
    shards: list[tuple[str, list[int]]] = []
    for split in ("train", "val", "test", "unused"):
        room, number = 0, 0
        for row in (int(row) for row in order if rows[row]["split"] == split):
            size = _size(rows[row])
            if not number or room < size:
                room = _SHARD
                shards.append((f"{split}-{number:06d}.tar", []))
                number += 1
            room -= size
            shards[-1][1].append(row)
    shard, offset = [""] * len(rows), np.zeros(len(rows), np.int64)
    for name, members in progress(shards, len(shards)):
        at = 0
        files = []
        for row in members:
            meta, label = _members(rows[row], classes)
            shard[row], offset[row] = name, at + _BLOCK
            files.append((row, meta, label))
            at += _size(rows[row], meta, label)
        total = -(-(at + 2 * _BLOCK) // _RECORD) * _RECORD
        if state_of(folder / name)[0] != total:
            _write(root, folder / name, rows, files)
    return replace(table, shard=TextColumn.of(shard), offset=offset)


def _write(root: Place, place: Place, rows: list[dict[str, Any]], files: list[tuple[int, bytes, bytes]]) -> None:
    with (
        written(place) as path,
        open(path, "wb") as archive,
        tarfile.open(fileobj=archive, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for row, meta, label in files:
            video, key = rows[row], f"{row:09d}"
            with local_copy(root / video["path"]) as source:
                try:
                    with open(source, "rb") as content:
                        if source.stat().st_size != video["num_bytes"]:
                            raise InputError(f"{root / video['path']} changed since its table was written")
                        _add(tar, f"{key}.{_suffix(video['path'])}", content, video["num_bytes"])
                except OSError as error:
                    raise InputError(f"{root / video['path']}: cannot be read ({error.strerror})") from None
            _add(tar, f"{key}.cls", io.BytesIO(label), len(label))
            _add(tar, f"{key}.json", io.BytesIO(meta), len(meta))


def _add(tar: tarfile.TarFile, name: str, content: Any, num_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = num_bytes, 0o644
    tar.addfile(member, content)


def _members(video: dict[str, Any], classes: list[str]) -> tuple[bytes, bytes]:
    kept = ("path", "label", "group", "split", "num_frames", "fps", "width", "height")
    meta = json.dumps({name: video[name] for name in kept}).encode()
    return meta, str(classes.index(video["label"])).encode()


def _size(video: dict[str, Any], meta: bytes = b"", label: bytes = b"") -> int:
    """Bytes of the members of a video in the archive."""
    padded = sum(-(-size // _BLOCK) * _BLOCK for size in (video["num_bytes"], len(meta), len(label)))
    return 3 * _BLOCK + padded


def _suffix(path: str) -> str:
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem and dot and suffix.isalnum() else _SUFFIX
