"""A folder of videos -> its manifest, copies that decode faster, and what is wrong with it."""

import csv
import logging
import os
from collections import Counter
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path

from cbam3d.config import DataConfig
from cbam3d.config.bundled import find_recipe
from cbam3d.data.listing import Listing, list_videos
from cbam3d.data.manifest import DUPLICATES_NAME, JOURNAL_NAME, TABLE_NAME, Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.scan import Reading, Scan, copies_manifest, scan_videos
from cbam3d.data.shards import write_shards
from cbam3d.data.split import class_names, divided_files
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.files import leads_out
from cbam3d.runs.cluster import Cluster, cluster_of
from cbam3d.runs.duplicates import ADVICE, HEADER, across_splits, duplicates
from cbam3d.runs.progress import over_files, show_progress
from cbam3d.runs.rendered import render_missing
from cbam3d.runs.table import refuse_leaks, report_listing, split_manifest
from cbam3d.storage import Place, Url, exists, files_below, is_url, local_copy, place_of, remove, written
from cbam3d.video.index import INDEX_NAME, Indexed, PacketIndex, write_index
from cbam3d.video.probe import Copies

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Preparation:
    """What is known of a folder of videos.

    Args:
        manifest: the table; `split` is filled by the recipe or the fraction.
        path: of the table.
        copies: folder of the copies, or None.
        shards: folder of the shards, or None.

    Examples:
        >>> import cbam3d
        >>> done = cbam3d.prepare("folder", "gestures")
        >>> done.path.name
        'manifest.csv'
    """

    manifest: Manifest
    path: Place
    copies: Place | None
    shards: Place | None

    def __repr__(self) -> str:
        usable = int(self.manifest.usable.sum())
        return f"Preparation({counted(len(self.manifest), 'row')}, {usable:,} usable, in {self.path})"

    def classes(self) -> list[tuple[str, int, int]]:
        """Name, number of videos and of usable ones of each class."""
        manifest = self.manifest
        found, usable = (Counter(chain.from_iterable(m.labels())) for m in (manifest, manifest.select(manifest.usable)))
        return [(name, found[name], usable[name]) for name in sorted(found)]


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
    shards: str | None = None,
    engine: str = "local",
    progress: Progress = show_progress,
) -> Preparation:
    """Read every video once, and write what is known of it to ROOT/manifest.csv, and where its packets are to
    ROOT/manifest.packets: training then opens no video ahead, and reads no packets but those of its clips. When
    interrupted, the same call resumes.

    Args:
        recipe: name of a recipe, or path of a folder with a recipe.yaml.
        root: folder of the data, or its URL.
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
        shards: folder of tar archives that are written as well, of the copies where there are some.
        engine: local reads in processes of this machine; ray on the Ray cluster that there is, or else on this machine.
        progress: shows the reading.

    Raises:
        InputError: a table that exists already, no videos, copies that cannot be written, or groups that leak; the
            table is then written all the same.

    Examples:
        >>> import cbam3d
        >>> done = cbam3d.prepare("folder", "actions", short_side=32)
        >>> bool(done.manifest.usable.all())
        True
    """
    facts, folder = load_recipe(find_recipe(recipe)), place_of(root)
    for name, value in (("workers", workers), ("short-side", short_side), ("gop", gop)):
        if value is not None and value < 1:
            raise InputError(f"prepare: --{name} must be at least 1, got {value}")
    target, archives = _targets(facts, folder, short_side, gop, copies, shards)
    known, copied = _has_table(folder), target is not None and _has_table(target.root)
    if known and target is None and archives is None:
        raise InputError(f"{folder / TABLE_NAME} exists: remove it to read every video again")
    if engine != "local":  # processes elsewhere have folders of their own
        folder = folder.absolute() if isinstance(folder, Path) else folder
        if target is not None and isinstance(target.root, Path):
            target = replace(target, root=target.root.absolute())
    if isinstance(folder, Path):
        render_missing(facts.name, folder)
    data = DataConfig(recipe=recipe, root=str(folder), groups=groups, annotations=annotations, split=split)

    def listed() -> Listing:
        groups_file, lists = (Path(place) if place else None for place in (groups, annotations))
        return list_videos(folder, facts, groups_file, lists, split, allow_outside)

    if known and groups:
        _refuse_other_groups(folder, listed())
    try:
        if known and (target is None or copied):
            prepared = _Prepared.read(folder, allow_outside)
            divided = split_manifest(prepared.manifest, data, facts)
            if target is not None:
                prepared = _Prepared.read(target.root, allow_outside)
        else:
            listing = _listed(_Prepared.read(folder, allow_outside), allow_outside) if known else listed()
            report_listing(listing)
            if target is not None:
                _refuse_same_copy(listing, target)
            reading = Reading(folder, timeout_seconds, target, facts.fps, folder / JOURNAL_NAME)
            with cluster_of(engine) as cluster:
                prepared, scan = _read(listing, reading, workers, cluster, progress, table=not known)
            divided = split_manifest(scan.manifest, data, facts)
            for name, problem in zip(scan.manifest.names(), scan.manifest.problem, strict=True):
                if problem:
                    logger.warning(f"{name}: {problem}")
            _write_duplicates(divided, scan.fingerprints, folder / DUPLICATES_NAME)
        if archives is not None:
            _write_shards(prepared, divided, class_names(divided, facts), archives, allow_outside, progress)
    except KeyboardInterrupt:
        logger.warning("interrupted; the same command resumes from here")
        raise
    except OSError as error:
        raise InputError(f"{error.filename or folder}: cannot be written ({error.strerror})") from None
    if not allow_leaks:
        refuse_leaks(divided)
    return Preparation(divided, folder / TABLE_NAME, target.root if target else None, archives)


def _targets(
    facts: Recipe, folder: Place, short_side: int | None, gop: int, copies: str | None, shards: str | None
) -> tuple[Copies | None, Place | None]:
    """Where copies and shards go.

    Raises:
        InputError: options that do not go together, or a folder that has them already.
    """
    if copies and short_side is None:
        raise InputError("prepare: --copies has no effect without --short-side")
    if facts.kind == "image":
        raise InputError(f"{facts.name} holds images, which need no preparation")
    known = _has_table(folder)
    if shards and facts.kind == "frames" and short_side is None and not known:
        raise InputError("prepare: --shards of folders of images holds copies of them: it needs --short-side")
    target = None if short_side is None else _copies(folder, short_side, gop, copies)
    archives = None if shards is None else _free(place_of(shards), "shards")
    if archives is not None and archives in (folder, target and target.root):
        raise InputError(f"prepare: --shards needs a folder of its own, got {archives}")
    if target is not None and not (known and archives):  # a call that was interrupted while it wrote shards goes on
        _free(target.root, "copies")
    return target, archives


@dataclass(frozen=True)
class _Prepared:
    """A folder of videos, its table, and the packets of the table's rows."""

    root: Place
    manifest: Manifest
    packets: list[bytes]

    @classmethod
    def read(cls, root: Place, allow_outside: bool) -> "_Prepared":
        """What is in a folder."""
        manifest = read_manifest(root / TABLE_NAME, allow_outside)
        if not manifest.shard.equals("").all():
            raise InputError(f"{root} holds shards: copies and shards are made from the videos")
        if distant := [path for path in manifest.path if is_url(path)]:
            raise InputError(f"{root / TABLE_NAME}: {distant[0]} is a URL, and not in the folder that is prepared")
        if not exists(root / INDEX_NAME):
            return cls(root, manifest, [b""] * len(manifest))
        with local_copy(root / INDEX_NAME) as path:
            index = PacketIndex(path, root)
            known = (index.packets(row["path"], row["num_bytes"], None) or b"" for row in manifest.rows())
            return cls(root, manifest, list(known))

    def write(self, table: bool = True) -> None:
        """Write the table, if need be, and the index beside it."""
        if table:
            write_manifest(self.manifest, self.root / TABLE_NAME)
        videos = {
            row["path"]: Indexed(row["path"], row["num_bytes"], row["changed_ns"], kept)
            for row, kept in zip(self.manifest.rows(), self.packets, strict=True)
            if row["num_frames"]
        }
        write_index(self.root / INDEX_NAME, videos.values())


def _read(
    listing: Listing, reading: Reading, workers: int | None, cluster: Cluster | None, progress: Progress, table: bool
) -> tuple[_Prepared, Scan]:
    """Read every video, and write the tables of the folder (unless it has one) and of the copies; returns the folder
    that training reads, and what was found."""
    folder, target = reading.root, reading.copies
    text = f"reading every video of {folder}" + (f", writing copies to {target.root}" if target else "")
    scan = scan_videos(listing, reading, workers, cluster, over_files(progress, text))
    prepared = _Prepared(folder, scan.manifest, scan.packets)
    prepared.write(table)
    if target is not None:
        prepared = _Prepared(target.root, *copies_manifest(target, scan))
        prepared.write()
    reading.notes().remove()
    return prepared, scan


def _has_table(root: Place) -> bool:
    return exists(root / TABLE_NAME)


def _free(folder: Place, what: str) -> Place:
    """A folder where no copies or shards are complete."""
    if _has_table(folder):
        raise InputError(f"{folder / TABLE_NAME} exists: remove it to write the {what} again")
    return folder


def _write_shards(
    prepared: _Prepared, divided: Manifest, classes: list[str], folder: Place, allow_outside: bool, progress: Progress
) -> None:
    """Pack the usable videos, those of each split apart.

    Raises:
        InputError: a video with parts in several splits, or that is not among the originals.
    """
    if in_several := divided_files(divided):
        raise InputError(f"--shards: {in_several[0]} has parts in several splits, an archive holds videos of one")
    splits = dict(zip(divided.path, divided.split, strict=True))
    names = {f"{name}.avi": name for name in divided.path} | {name: name for name in divided.path}
    if foreign := [path for path in prepared.manifest.path if path not in names]:
        raise InputError(f"{foreign[0]} is in the table of {prepared.root}, but not in that of its originals")
    of_rows = prepared.manifest.with_split([splits[names[path]] for path in prepared.manifest.path])
    show = over_files(progress, f"writing shards to {folder}")
    table = write_shards(prepared.root, of_rows, classes, folder, allow_outside, show)
    usable = prepared.manifest.usable
    packets = [kept for kept, good in zip(prepared.packets, usable, strict=True) if good]
    _Prepared(folder, table.with_split(prepared.manifest.select(usable).split), packets).write()


def _copies(root: Place, short_side: int, gop: int, folder: str | None) -> Copies:
    if folder:
        place = place_of(folder)
    elif isinstance(root, Path):
        place = root.resolve().with_name(f"{root.resolve().name}-{short_side}p")
    else:
        place = root.with_name(f"{root.name}-{short_side}p")
    inside = isinstance(place, Path) and isinstance(root, Path) and place.resolve().is_relative_to(root.resolve())
    if inside or f"{place}/".startswith(f"{root}/"):
        raise InputError(f"{place}: copies must not lie among the originals")
    return Copies(place, short_side, gop)


def _listed(prepared: _Prepared, allow_outside: bool) -> Listing:
    """The usable videos of a table: what was decided there holds for the copies."""
    root, manifest, columns = prepared.root, prepared.manifest, ("path", "label", "group", "split", "start", "end")
    rows = [{name: row[name] for name in columns} for row in manifest.select(manifest.usable).rows()]
    real_root = os.path.realpath(root) if isinstance(root, Path) else ""
    for row in rows:
        outside = isinstance(root, Path) and not allow_outside and leads_out(root / row["path"], real_root)
        row["problem"] = "a link that leads out of the folder" if outside else ""
    states = files_below(root) if isinstance(root, Url) else {}
    return Listing(rows, [], states=states, several=manifest.several)


def _refuse_same_copy(listing: Listing, copies: Copies) -> None:
    """Raise InputError where the copies of two videos would be one file."""
    taken: dict[str, str] = {}
    for path in (row["path"] for row in listing.found if not row["problem"]):
        name = copies.name(path)
        if (other := taken.setdefault(name, path)) != path:
            raise InputError(f"{copies.root / name} would be the copy of {other} and of {path}: rename one")


def _refuse_other_groups(folder: Place, listing: Listing) -> None:
    """Raise InputError where a groups file says other than the table, which is what holds."""
    kept = {row["path"]: row for row in read_manifest(folder / TABLE_NAME, allow_outside=True).rows()}
    for row in listing.found:
        for name in ("group", "split") if row["path"] in kept and not row["problem"] else ():
            if row[name] != (known := kept[row["path"]][name]):
                raise InputError(
                    f"{folder / TABLE_NAME} has {name} {known!r} for {row['path']}, --groups {row[name]!r}: "
                    "leave --groups out, or remove the table"
                )


def _write_duplicates(manifest: Manifest, fingerprints: list[bytes], path: Place) -> None:
    pairs = duplicates(manifest, fingerprints)
    if not pairs:
        remove(path)
        return
    with (
        written(path) as unfinished,
        open(unfinished, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        writer = csv.writer(file)
        writer.writerows([HEADER, *pairs])
    across = len(across_splits(pairs))
    advice = f"; {ADVICE}" if across else ""
    logger.warning(f"{counted(len(pairs), 'pair')} of near-duplicates, {across} of them across splits: {path}{advice}")
