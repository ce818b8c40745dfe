"""Videos that are nearly the same, and videos that a network knows from its training."""

import filecmp
import logging
import math
import posixpath
from collections import defaultdict
from collections.abc import Sequence
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
    trained: dict[int, list[_Part]] = defaultdict(list)
    for part in _parts(rows_of(read_manifest(run / TABLE_NAME, allow_outside=True), "train")):
        trained[part.num_bytes].append(part)
    held_out = [part for split in ("val", "test") for part in _parts(rows_of(manifest, split))]
    alike = {(part.path, o.path) for part in held_out for o in trained.get(part.num_bytes, []) if part.overlaps(o)}
    if not alike:
        return
    then = load_config(run / "config.yaml").data.root
    found = [(path, other, _same(place_of(root) / path, place_of(then) / other)) for path, other in alike]
    if same := sorted({path for path, _, is_same in found if is_same}):
        raise InputError(
            f"{root}: {counted(len(same), 'held-out video')} in the training of {run}, the first is {same[0]}: "
            "hold others out (data.groups, with a column split), or accept it with data.allow_leaks"
        )
    names = [(path, posixpath.basename(path) == posixpath.basename(other), same) for path, other, same in found]
    if unknown := sorted({path for path, is_named, is_same in names if is_same is None and is_named}):
        number = counted(len(unknown), "held-out video")
        logger.warning(f"{number} of the name and size of videos of the training of {run}; the first is {unknown[0]}")


@dataclass(frozen=True)
class _Part:
    """A video, or a part of one, in seconds."""

    path: str
    num_bytes: int
    start: float
    end: float

    def overlaps(self, other: "_Part") -> bool:
        return self.start < other.end - EXACT and other.start < self.end - EXACT


def _parts(rows: Manifest) -> list[_Part]:
    """Those of unknown size are left out."""
    columns = zip(rows.path, rows.num_bytes, rows.start, rows.end, strict=True)
    return [_Part(path, int(size), start, end or math.inf) for path, size, start, end in columns if size]


def _same(one: Place, other: Place) -> bool | None:
    """Whether two files have the same content; None where they cannot be compared."""
    if isinstance(one, Url) or isinstance(other, Url):
        return None
    try:
        return filecmp.cmp(one, other, shallow=False)
    except OSError:
        return None
