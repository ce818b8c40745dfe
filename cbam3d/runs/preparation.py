"""A folder of videos -> its manifest, copies that decode faster, and what is wrong with it."""

import csv
import logging
import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cbam3d.config import DataConfig
from cbam3d.config.bundled import find_recipe
from cbam3d.data.listing import Listing, list_videos
from cbam3d.data.manifest import Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import load_recipe
from cbam3d.data.scan import copies_manifest, scan_videos
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.files import leads_out
from cbam3d.runs.progress import over_files, show_progress
from cbam3d.runs.rendered import render_missing
from cbam3d.runs.table import refuse_leaks, report_listing, split_manifest
from cbam3d.video.fingerprint import near_duplicates
from cbam3d.video.index import INDEX_NAME, Indexed, write_index
from cbam3d.video.probe import Copies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What is known of a folder of videos.

    Args:
        manifest: the table; `split` is filled by the recipe or the fraction.
        path: of the table.
        copies: folder of the copies, or None.
    """

    manifest: Manifest
    path: Path
    copies: Path | None

    def classes(self) -> list[tuple[str, int, int]]:
        """Name, number of videos and of usable ones of each class."""
        codes, names = self.manifest.label.codes()
        counts = (np.bincount(part, minlength=len(names)) for part in (codes, codes[self.manifest.usable]))
        found, usable = (count.tolist() for count in counts)
        return list(zip(names, found, usable, strict=True))


def prepare(
    recipe: str,
    root: str | Path,
    *,
    groups: str | None = None,
    annotations: str | None = None,
    split: int = 1,
    allow_leaks: bool = False,
    allow_outside: bool = False,
    workers: int | None = None,
    timeout_seconds: float = 600.0,
    short_side: int | None = None,
    gop: int = 12,
    copies: str | None = None,
    progress: Progress = show_progress,
) -> Preparation:
    """Read every video once, and write what is known of it to ROOT/manifest.csv, and where its packets are to
    ROOT/manifest.packets: training then opens no video ahead, and reads no packets but those of its clips. When
    interrupted, the same call resumes.

    Args:
        recipe: name of a recipe, or path of a folder with a recipe.yaml.
        root: folder of the data.
        groups: CSV with the columns path and group (and label, split).
        annotations: the data set's own annotation files: their folder, or one of them.
        split: number of the split that is checked for leaks.
        allow_leaks: accept groups with videos in both training and held-out data.
        allow_outside: follow links that lead out of the folder.
        workers: processes that decode; None for one per core.
        timeout_seconds: how long a file may take.
        short_side: write copies whose shorter side has so many pixels; None for none.
        gop: frames from keyframe to keyframe of a copy.
        copies: folder of the copies; None for ROOT-<short_side>p.
        progress: shows the reading.

    Raises:
        InputError: a table that exists already, no videos, copies that cannot be written, or groups that leak; the
            table is then written all the same.
    """
    facts, root = load_recipe(find_recipe(recipe)), Path(root)
    for name, value in (("workers", workers), ("short-side", short_side), ("gop", gop)):
        if value is not None and value < 1:
            raise InputError(f"prepare: --{name} must be at least 1, got {value}")
    if copies and short_side is None:
        raise InputError("prepare: --copies has no effect without --short-side")
    if facts.kind == "image":
        raise InputError(f"{facts.name} holds images, which need no preparation")
    written = None if short_side is None else _copies(root, short_side, gop, copies)
    path = root / "manifest.csv"
    if path.exists() and written is None:
        raise InputError(f"{path} exists: remove it to read every video again")
    render_missing(facts.name, root)
    if path.exists():
        listing = _listed(root, read_manifest(path, allow_outside), allow_outside)
    else:
        groups_file, lists = (Path(place) if place else None for place in (groups, annotations))
        listing = list_videos(root, facts, groups_file, lists, split, allow_outside)
    report_listing(listing)
    journal = root / "manifest.csv.unfinished"
    text = f"reading every video of {root}" + (f", writing copies to {written.root}" if written else "")
    try:
        show = over_files(progress, text)
        scan = scan_videos(root, listing, workers, timeout_seconds, journal, written, facts.fps, show)
        if not path.exists():
            write_manifest(scan.manifest, path)
        _write_index(root, scan.manifest, scan.packets)
        if written is not None:
            copied, packets = copies_manifest(written, scan)
            write_manifest(copied, written.root / "manifest.csv")
            _write_index(written.root, copied, packets)
        journal.unlink(missing_ok=True)
    except KeyboardInterrupt:
        logger.warning("interrupted; the same command resumes from here")
        raise
    except OSError as error:
        raise InputError(f"{error.filename or root}: cannot be written ({error.strerror})") from None
    for name, problem in zip(scan.manifest.path, scan.manifest.problem, strict=True):
        if problem:
            logger.warning(f"{name}: {problem}")
    data = DataConfig(recipe=recipe, root=str(root), annotations=annotations, split=split)
    divided = split_manifest(scan.manifest, data, facts)
    _write_duplicates(divided, scan.fingerprints, root / "duplicates.csv")
    if not allow_leaks:
        refuse_leaks(divided)
    return Preparation(divided, path, written.root if written else None)


def _copies(root: Path, short_side: int, gop: int, folder: str | None) -> Copies:
    place = Path(folder) if folder else root.resolve().with_name(f"{root.resolve().name}-{short_side}p")
    if (place / "manifest.csv").exists():
        raise InputError(f"{place / 'manifest.csv'} exists: remove it to write the copies again")
    if place.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{place}: copies must not lie among the originals")
    return Copies(place, short_side, gop)


def _listed(root: Path, manifest: Manifest, allow_outside: bool) -> Listing:
    """The usable videos of a table: what was decided there holds for the copies."""
    columns = ("path", "label", "group", "split")
    rows = [{name: row[name] for name in columns} for row in manifest.select(manifest.usable).rows()]
    real_root = os.path.realpath(root)
    for row in rows:
        outside = not allow_outside and leads_out(root / row["path"], real_root)
        row["problem"] = "a link that leads out of the folder" if outside else ""
    return Listing(rows, [])


def _write_index(root: Path, manifest: Manifest, packets: list[bytes]) -> None:
    videos = (
        Indexed(row["path"], row["num_bytes"], row["changed_ns"], kept)
        for row, kept in zip(manifest.rows(), packets, strict=True)
        if row["num_frames"]
    )
    write_index(root / INDEX_NAME, videos)


def _write_duplicates(manifest: Manifest, fingerprints: list[bytes], path: Path) -> None:
    usable = manifest.usable
    pairs = near_duplicates([whole if good else b"" for whole, good in zip(fingerprints, usable, strict=True)])
    if not pairs:
        return
    paths, groups, splits = list(manifest.path), list(manifest.group), list(manifest.split)
    across = 0
    with open(path, "w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["path", "split", "group", "other_path", "other_split", "other_group"])
        for a, b in pairs:
            writer.writerow([paths[a], splits[a], groups[a], paths[b], splits[b], groups[b]])
            across += splits[a] != splits[b] and "unused" not in (splits[a], splits[b])
    logger.warning(f"{counted(len(pairs), 'pair')} of near-duplicates, {across} of them across splits: {path}")
