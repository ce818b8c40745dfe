"""The table of a data set's videos: found, split and checked as configured."""

import logging
import os
from pathlib import Path, PurePosixPath
from stat import S_ISREG

from cbam3d.config import Config, DataConfig
from cbam3d.data.background import BACKGROUND
from cbam3d.data.listing import Listing, find_videos, list_videos, lists_of
from cbam3d.data.manifest import TABLE_NAME, Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe
from cbam3d.data.scan import Reading, scan_videos
from cbam3d.data.split import assign_splits, leaking_groups
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.runs.progress import over_files
from cbam3d.runs.rendered import render_missing
from cbam3d.storage import Place, Url, exists, place_of
from cbam3d.video.container import VIDEO_SUFFIXES

logger = logging.getLogger(__name__)


def refuse_other_classes(found: list[str], expected: list[str] | None, root: str) -> None:
    """Raise InputError where the classes that were found are not those that were expected."""
    if expected is not None and found != expected:
        here, there = (", ".join(names[:5]) for names in (found, expected))
        raise InputError(f"{root} has the classes {here}, the checkpoint was trained on {there}")


def load_manifest(
    config: Config, recipe: Recipe, expected: list[str] | None, progress: Progress
) -> tuple[Manifest, list[bytes]]:
    """The table of the videos: the file that is named, the one in the folder, or a scan; and of a scan the
    fingerprints of its rows.

    Raises:
        InputError: an unreadable table, groups beside a table that has its own, videos that changed since it was
            written, or what `list_videos` raises.
    """
    data, root = config.data, place_of(config.data.root)
    path = place_of(data.manifest) if data.manifest else root / TABLE_NAME
    if data.manifest or exists(path):
        for key in ("groups",) if recipe.lists_have_numbers else ("groups", "annotations"):
            if getattr(data, key):
                again = (
                    f"remove that table and run cbam3d prepare {data.recipe} --root {root} --{key} {getattr(data, key)}"
                )
                other = "data.manifest" if data.manifest else again
                raise InputError(f"data.{key} has no effect beside {path}: remove it, or {other}")
        logger.info(f"videos as listed in {path}")
        manifest = read_manifest(path, data.allow_outside)
        if isinstance(root, Path) and isinstance(path, Path) and not data.manifest:
            _report_added(data, path, manifest, recipe)
            refuse_changed(manifest, root, f"since {path} was written: remove that table, or bring the files back")
        return manifest, []
    if isinstance(root, Url):
        raise InputError(f"{path}: no such table: cbam3d prepare {data.recipe} --root {root}")
    rendered = render_missing(recipe.name, root)
    groups, annotations = (Path(place) if place else None for place in (data.groups, data.annotations))
    listing = list_videos(root, recipe, groups, annotations, data.split, data.allow_outside)
    texts = {row["label"] for row in listing.found if not row["problem"]}
    labels = sorted({name for text in texts for name in (text.split("|") if listing.several else [text]) if name})
    wanted = set(expected or ()) - {BACKGROUND}
    if not recipe.classes and not set(labels) >= wanted:  # further ones may be of unreadable files
        refuse_other_classes(labels, expected, data.root)
    report_listing(listing)
    show = over_files(progress, f"reading every video of {root}")
    scan = scan_videos(listing, Reading(root, fps=recipe.fps), progress=show)
    if rendered:
        write_manifest(scan.manifest, path)
    return scan.manifest, scan.fingerprints


def split_manifest(manifest: Manifest, data: DataConfig, recipe: Recipe) -> Manifest:
    """The table with its split column filled, as configured; that of a table that a run keeps is final.

    Raises:
        InputError: what `lists_of` and `assign_splits` raise.
    """
    listed = {}
    if recipe.lists_have_numbers and not _is_kept(data.manifest):
        annotations = Path(data.annotations) if data.annotations else None
        listed = lists_of(recipe, place_of(data.root), annotations, data.split)
    if data.split != 1 and not listed and not recipe.test_groups and not data.manifest and not data.groups:
        none = f"no lists of {recipe.name} are there: name data.annotations" if recipe.lists_have_numbers else ""
        raise InputError(f"data.split {data.split}: {none or f'{recipe.name} has one split'}")
    if recipe.lists_have_numbers and not listed and not recipe.test_groups and manifest.split.equals("").all():
        alone = manifest.path.values.equals(manifest.group.values)
        apart = ", each by itself: those of one source may be on both sides" if alone else ", by group"
        logger.warning(
            f"no lists of {recipe.name} are there (data.annotations): a share of its videos is held out{apart}"
        )
    return assign_splits(manifest, recipe, data.split, data.test_fraction, listed)


def _is_kept(table: str | None) -> bool:
    """Whether a run or a comparison keeps the table, beside its configuration."""
    return bool(table) and any(Path(table or "").with_name(name).is_file() for name in ("config.yaml", "recipe.yaml"))


def refuse_leaks(manifest: Manifest) -> None:
    """Raise InputError where a group has usable videos in training and held out."""
    if leaks := leaking_groups(manifest.select(manifest.usable)):
        names = ", ".join(leaks[:3]) + (", …" if len(leaks) > 3 else "")
        raise InputError(
            f"{len(leaks)} groups have videos in training and held out: {names} "
            "(data.allow_leaks, or --allow-leaks of prepare, accepts it)"
        )


def refuse_changed(
    manifest: Manifest, root: Place, since: str = "since the run began: begin a new run, or bring the files back"
) -> None:
    """Hold the files of a table against those on disk; those at URLs, in archives, and folders of images, whose images
    would have to be looked at one by one, are not.

    Args:
        manifest: the table.
        root: folder of the files.
        since: when it was written, and what to do, for the error.

    Raises:
        InputError: a file that has another size now.
    """
    if isinstance(root, Url):
        return
    known = manifest.select(manifest.usable & (manifest.num_bytes > 0) & manifest.shard.equals(""))
    changed, touched = [], []
    for path, size, time_ns in zip(known.path, known.num_bytes, known.changed_ns, strict=True):
        try:
            state = os.stat(f"{root}/{path}")
        except (OSError, ValueError):  # reported when it is read, as is an empty file; a URL
            continue
        if S_ISREG(state.st_mode) and state.st_size and (state.st_size, state.st_mtime_ns) != (size, time_ns):
            (touched if state.st_size == size else changed).append(path)
    if changed:
        raise InputError(f"{counted(len(changed), 'video')} of {root}, the first is {changed[0]}, changed {since}")
    if touched:
        number, (then, _, _) = counted(len(touched), "video"), since.rpartition(": ")  # a path may hold colons
        logger.warning(f"{number} of {root} modified {then}, though of the same size; the first is {touched[0]}")


def with_manifest_of(folder: Path, config: Config) -> Config:
    """The configuration with the table of videos that the run in `folder` has kept, in place of groups and lists: the
    same files, the same split."""
    path = folder / TABLE_NAME
    if not path.is_file():
        return config
    return config.override({"data": {"manifest": str(path), "groups": None, "annotations": None}})


def report_listing(listing: Listing) -> None:
    """Report listed files that are missing, files without a video suffix, links that lead out, labels with a bar."""
    if listing.missing:
        number = counted(len(listing.missing), "listed video")
        logger.warning(f"not on disk: {number}, the first is {listing.missing[0]}")
    if listing.ignored:
        number = counted(len(listing.ignored), "file")
        logger.warning(f"no videos by their suffix: {number}, the first is {listing.ignored[0]}")
    if listing.outside_folders:
        number = counted(len(listing.outside_folders), "link")
        text = f"lead out of the folder, and are not followed: {number}, the first is {listing.outside_folders[0]}"
        logger.warning(f"{text} (data.allow_outside, or --allow-outside of prepare, follows them)")
    if several := sorted({row["label"] for row in listing.found if "|" in row["label"] and not listing.several}):
        text = "is taken for one class, not for several, which stand in a column labels"
        logger.warning(f"the label {several[0]!r} {text}")


def _report_added(data: DataConfig, path: Path, manifest: Manifest, recipe: Recipe) -> None:
    """Report videos that were added after a table was written. The folders are searched only where one has
    changed since, or is new."""
    root, written, listed = Path(path.parent), path.stat().st_mtime_ns, set(manifest.path)
    folders = {parent for name in listed for parent in PurePosixPath(name).parents} - {PurePosixPath(".")}
    top = list(os.scandir(root)) if root.is_dir() else []
    new_tops = [item for item in top if item.is_dir() and PurePosixPath(item.name) not in folders]
    changed = any(_changed_after(root / folder, written) for folder in folders)
    changed |= any(_changed_after(Path(item.path), written) for item in new_tops)
    changed |= any(item.name not in listed and Path(item.name).suffix.lower() in VIDEO_SUFFIXES for item in top)
    if not changed:
        return
    try:
        found = find_videos(root, data.allow_outside, recipe.kind == "frames")
    except InputError:  # none is left: reading reports it
        return
    if added := [name for name in found.videos if name not in listed and name not in found.outside]:
        text = (
            f"{counted(len(added), 'video')} not in that table, the first is {added[0]}: remove the table to read them"
        )
        logger.warning(text)


def _changed_after(folder: Path, time_ns: int) -> bool:
    try:
        return folder.stat().st_mtime_ns > time_ns
    except OSError:
        return False
