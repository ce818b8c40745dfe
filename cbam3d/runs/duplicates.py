"""Videos that are nearly the same, and videos that a network knows from its training."""

import hashlib
import logging
import math
import os
import posixpath
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cbam3d.config import load_config
from cbam3d.data.manifest import TABLE_NAME, Manifest, read_manifest
from cbam3d.data.split import rows_of
from cbam3d.errors import InputError, counted
from cbam3d.storage import Place, Url, place_of
from cbam3d.video.fingerprint import near_duplicates
from cbam3d.video.timing import EXACT

logger = logging.getLogger(__name__)
HEADER = ["path", "split", "group", "other_path", "other_split", "other_group"]
_END = 2**16  # bytes
ADVICE = "those inflate the score: give both one group (data.groups, --groups), or the split unused to one"


def duplicates(manifest: Manifest, fingerprints: Sequence[bytes]) -> list[list[str]]:
    """The pairs of usable files that are nearly the same, as rows with `HEADER`.

    Args:
        manifest: with splits.
        fingerprints: of its rows, see video/fingerprint.py.
    """
    first = manifest.first_of_files()
    files, own = manifest.select(first), [fingerprints[row] for row in first]
    pairs = near_duplicates([whole if good else b"" for whole, good in zip(own, files.usable, strict=True)])
    facts = list(zip(files.path, files.split, files.group, strict=True))
    return [[*facts[a], *facts[b]] for a, b in pairs]


def across_splits(pairs: list[list[str]]) -> list[list[str]]:
    """Those of two splits."""
    return [pair for pair in pairs if pair[1] != pair[4] and "unused" not in (pair[1], pair[4])]


def report_duplicates(manifest: Manifest, fingerprints: Sequence[bytes]) -> None:
    """Warn of videos that are nearly those of another split."""
    if found := across_splits(duplicates(manifest, fingerprints)):
        number, (one, _, _, other, *_) = counted(len(found), "pair"), found[0]
        logger.warning(f"{number} of near-duplicates across splits, the first is {one} and {other}; {ADVICE}")


def refuse_trained(manifest: Manifest, root: str, run: Path) -> None:
    """Hold the held-out videos against those that a run was trained on: files of the same size are compared, and where
    those of training are not there any more, those of the same name reported. Parts of a file that do not overlap are
    not the same.

    Args:
        manifest: of the videos to score, with splits.
        root: folder of these videos.
        run: folder of the run; nothing is done where it has no table of videos.

    Raises:
        InputError: some are the same.
    """
    if not (run / TABLE_NAME).is_file():
        return
    trained = _parts(rows_of(read_manifest(run / TABLE_NAME, allow_outside=True), "train"))
    held_out = [part for split in ("val", "test") for part in _parts(rows_of(manifest, split))]
    sizes = {part.num_bytes for part in trained} & {part.num_bytes for part in held_out}
    if not sizes:
        return
    then = load_config(run / "config.yaml").data.root
    known: dict[str, list[_Part]] = defaultdict(list)
    lost: set[tuple[str, int]] = set()  # names and sizes
    for part, digest in _digests(trained, sizes, then):
        known[digest].append(part)
        if not digest:
            lost.add(part.name_and_size)
    same, unknown = set[str](), set[str]()
    for part, digest in _digests(held_out, sizes, root):
        if digest and any(part.overlaps(other) for other in known.get(digest, [])):
            same.add(part.path)
        elif part.name_and_size in lost:
            unknown.add(part.path)
    if same:
        raise InputError(
            f"{root}: {counted(len(same), 'held-out video')} in the training of {run}, the first is {min(same)}: "
            "hold others out (data.groups, with a column split), or accept it with data.allow_leaks"
        )
    if unknown:
        number = counted(len(unknown), "held-out video")
        logger.warning(f"{number} of the name and size of videos of the training of {run}; the first is {min(unknown)}")


def warn_of_unknown_training(run: Path) -> None:
    """Say that videos cannot be held against those that a run was trained on."""
    logger.warning(
        f"what {run} was trained on is not known, as it has no {TABLE_NAME}: "
        "videos that are held out here may be among it"
    )


@dataclass(frozen=True)
class _Part:
    """A video, or a part of one, in seconds."""

    path: str
    num_bytes: int
    start: float
    end: float

    @property
    def name_and_size(self) -> tuple[str, int]:
        return posixpath.basename(self.path), self.num_bytes

    def overlaps(self, other: "_Part") -> bool:
        return self.start < other.end - EXACT and other.start < self.end - EXACT


def _parts(rows: Manifest) -> list[_Part]:
    """Those of unknown size are left out."""
    columns = zip(rows.path, rows.num_bytes, rows.start, rows.end, strict=True)
    return [_Part(path, int(size), start, end or math.inf) for path, size, start, end in columns if size]


def _digests(parts: Sequence[_Part], sizes: Collection[int], root: str) -> Iterator[tuple[_Part, str]]:
    """The parts of files of these sizes, with what tells the content of a file; empty where it cannot be read."""
    place, known = place_of(root), dict[str, str]()
    for part in parts:
        if part.num_bytes not in sizes:
            continue
        if part.path not in known:
            known[part.path] = _digest(place / part.path)
        yield part, known[part.path]


def _digest(place: Place) -> str:
    """Of the beginning and the end of a file, which no two videos of one size share."""
    if isinstance(place, Url):
        return ""
    try:
        with open(place, "rb") as file:
            content = file.read(_END)
            file.seek(max(0, os.fstat(file.fileno()).st_size - _END))
            return hashlib.sha256(content + file.read(_END)).hexdigest()
    except OSError:
        return ""
