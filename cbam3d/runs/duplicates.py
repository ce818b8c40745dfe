"""Videos that are nearly the same, and videos that a network knows from its training."""

import logging
import posixpath
from collections.abc import Sequence
from pathlib import Path

from cbam3d.data.manifest import TABLE_NAME, Manifest, read_manifest
from cbam3d.data.split import rows_of
from cbam3d.errors import InputError, counted
from cbam3d.video.fingerprint import near_duplicates

logger = logging.getLogger(__name__)
HEADER = ["path", "split", "group", "other_path", "other_split", "other_group"]
ADVICE = "those inflate the score: give both one group (--groups), or the split unused to one"


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
    """Those of which one is held out, and the other is not."""
    return [pair for pair in pairs if pair[1] != pair[4] and "unused" not in (pair[1], pair[4])]


def report_duplicates(manifest: Manifest, fingerprints: Sequence[bytes]) -> None:
    """Warn of held-out videos that are nearly those of training."""
    if found := across_splits(duplicates(manifest, fingerprints)):
        number, (one, _, _, other, *_) = counted(len(found), "pair"), found[0]
        logger.warning(f"{number} of near-duplicates across splits, the first is {one} and {other}; {ADVICE}")


def refuse_trained(manifest: Manifest, run: Path, root: str) -> None:
    """Hold the held-out videos against those that a run was trained on, by the names and sizes of their files.

    Args:
        manifest: of the videos to score, with splits.
        run: folder of the run; nothing is done where it has no table of videos.
        root: folder of the videos, for the error.

    Raises:
        InputError: some are the same.
    """
    if not (run / TABLE_NAME).is_file():
        return
    trained = set(_files(rows_of(read_manifest(run / TABLE_NAME, allow_outside=True), "train")))
    held_out = [rows_of(manifest, split) for split in ("val", "test")]
    files = [file for rows in held_out for file in zip(rows.path, _files(rows), strict=True)]
    known = sorted({path for path, file in files if file in trained})
    if known:
        raise InputError(
            f"{root}: {counted(len(known), 'held-out video')} in the training of {run}, the first is {known[0]}: "
            "hold others out (data.groups, with a column split), or accept it with data.allow_leaks"
        )


def _files(rows: Manifest) -> list[tuple[str, int]]:
    return [(posixpath.basename(path), int(size)) for path, size in zip(rows.path, rows.num_bytes, strict=True)]
