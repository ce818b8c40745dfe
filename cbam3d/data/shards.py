"""Videos of a data set in tar archives, some thousand in each: read here at random, by WebDataset in order.

Each video of an archive is three members with one number for a name: the file, its class number (`cls`), and what the
table has of it (`json`), as WebDataset (https://github.com/webdataset/webdataset) pairs them. Of a video in parts, the
class is that of the first, and the JSON has all of them as `parts`; videos that may have several labels have them as
text (`txt`) in place of `cls`.
The archives of a split hold its videos in an order without meaning, the same for the same table.
"""

import hashlib
import io
import json
import os
import re
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from cbam3d.data.manifest import Manifest, TextColumn
from cbam3d.data.recipe import SPLITS
from cbam3d.data.scan import FileProgress
from cbam3d.errors import InputError
from cbam3d.files import leads_out
from cbam3d.storage import Place, Url, exists, files_below, local_copy, remove, written

_SHARD = 1 << 29  # bytes, about
_BLOCK = tarfile.BLOCKSIZE
_SPLITS = (*SPLITS, "unused")
NOTES_NAME = ".shards.unfinished"  # folder with what each finished archive holds
_SUFFIX = "bin"  # of a file without one


def write_shards(
    root: Place,
    manifest: Manifest,
    classes: list[str],
    folder: Place,
    allow_outside: bool = False,
    progress: FileProgress = lambda items, total: items,
) -> Manifest:
    """Write the usable videos of a table into archives. Those of an interrupted call are kept, if they are of the same
    videos; other archives of this kind are removed from the folder.

    Args:
        root: folder of the videos.
        manifest: their table, with its splits.
        classes: in index order.
        folder: of the archives.
        allow_outside: follow links that lead out of the root.
        progress: wraps the iterable of archives, given it and their number.

    Returns: the table of the videos in the archives.

    Raises:
        InputError: a video that has changed since the table was written, or leads out of the root; or an archive that
            cannot be written.
    """
    table = manifest.select(manifest.usable)
    files: dict[str, list[dict[str, Any]]] = {}
    for row in table.rows():
        files.setdefault(row["path"], []).append(row)
    rows, notes = [parts[0] for parts in files.values()], folder / NOTES_NAME
    if not allow_outside and isinstance(root, Path):
        real_root = os.path.realpath(root)
        for row in rows:
            if leads_out(root / row["path"], real_root):
                way_out = "a link that leads out of the folder (--allow-outside accepts it)"
                raise InputError(f"{root / row['path']}: {way_out}")
    shards = _divide(rows)
    places: dict[str, tuple[str, int]] = {}
    for name, members in progress(shards, len(shards)):
        at, packed, digest = 0, list[tuple[int, bytes, bytes]](), hashlib.sha256()
        for row in members:
            meta, label = _members(files[rows[row]["path"]], None if table.several else classes)
            places[rows[row]["path"]] = name, at + _BLOCK
            packed.append((row, meta, label))
            at += _size(rows[row], meta, label)
            digest.update(f"{row}|{rows[row]['num_bytes']}|{rows[row]['changed_ns']}|".encode() + label + meta)
        if _note(notes / name) != digest.hexdigest():
            _write(root, folder / name, rows, packed, "txt" if table.several else "cls")
            with written(notes / name) as path:
                path.write_text(digest.hexdigest())
    for name in set(_archives_in(folder)) - {name for name, _ in shards}:
        remove(folder / name)
    remove(notes)
    shard, offset = zip(*(places[path] for path in table.path), strict=True)
    return replace(table, shard=TextColumn.of(shard), offset=np.array(offset, np.int64))


def _divide(rows: list[dict[str, Any]]) -> list[tuple[str, list[int]]]:
    """The archives, and the rows of each."""
    shards: list[tuple[str, list[int]]] = []
    order = np.random.default_rng(0).permutation(len(rows))
    for split in _SPLITS:
        room, number = 0, 0
        for row in (int(row) for row in order if rows[row]["split"] == split):
            size = _size(rows[row])
            if not number or room < size:
                room = _SHARD
                shards.append((f"{split}-{number:06d}.tar", []))
                number += 1
            room -= size
            shards[-1][1].append(row)
    return shards


def _note(place: Place) -> str:
    if not exists(place):
        return ""
    with local_copy(place) as path:
        return path.read_text()


def _archives_in(folder: Place) -> list[str]:
    if isinstance(folder, Url):
        names = list(files_below(folder, missing_ok=True))
    else:
        names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    return [name for name in names if re.fullmatch(rf"({'|'.join(_SPLITS)})-\d{{6,}}\.tar", name)]


def _write(
    root: Place, place: Place, rows: list[dict[str, Any]], files: list[tuple[int, bytes, bytes]], kind: str
) -> None:
    with (
        written(place) as path,
        open(path, "wb") as archive,
        tarfile.open(fileobj=archive, mode="w", format=tarfile.GNU_FORMAT) as tar,
    ):
        for row, meta, label in files:
            video, key = rows[row], f"{row:09d}"
            with local_copy(root / video["path"]) as source:
                try:
                    content = open(source, "rb")  # noqa: SIM115
                except OSError as error:
                    raise InputError(f"{root / video['path']}: cannot be read ({error.strerror})") from None
                with content:
                    if source.stat().st_size != video["num_bytes"]:
                        raise InputError(f"{root / video['path']} changed since its table was written")
                    _add(tar, f"{key}.{_suffix(video['path'])}", content, video["num_bytes"])
            _add(tar, f"{key}.{kind}", io.BytesIO(label), len(label))
            _add(tar, f"{key}.json", io.BytesIO(meta), len(meta))


def _add(tar: tarfile.TarFile, name: str, content: Any, num_bytes: int) -> None:
    member = tarfile.TarInfo(name)
    member.size, member.mode = num_bytes, 0o644
    tar.addfile(member, content)


def _members(parts: list[dict[str, Any]], classes: list[str] | None) -> tuple[bytes, bytes]:
    kept = ("path", "label", "group", "split", "num_frames", "fps", "width", "height")
    facts = {name: parts[0][name] for name in kept}
    if parts[0]["end"]:
        of_part = ("start", "end", "label", "first_frame", "num_frames")
        facts |= {"parts": [{name: part[name] for name in of_part} for part in parts]}
    label = parts[0]["label"] if classes is None else str(classes.index(parts[0]["label"]))
    return json.dumps(facts).encode(), label.encode()


def _size(video: dict[str, Any], meta: bytes = b"", label: bytes = b"") -> int:
    """Bytes of the members of a video in the archive."""
    padded = sum(-(-size // _BLOCK) * _BLOCK for size in (video["num_bytes"], len(meta), len(label)))
    return 3 * _BLOCK + padded


def _suffix(path: str) -> str:
    stem, dot, suffix = path.rpartition("/")[2].rpartition(".")
    return suffix.lower() if stem and dot and suffix.isalnum() else _SUFFIX
