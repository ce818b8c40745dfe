"""`cbam3d prepare`: a folder of videos -> its manifest, copies that decode faster, and what is wrong with it."""

import csv
import os
from argparse import Namespace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from cbam3d.config import Data
from cbam3d.data.listing import Listing, list_videos
from cbam3d.data.manifest import Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.scan import Scan, copies_manifest, scan_videos
from cbam3d.errors import InputError, counted
from cbam3d.files import leads_out
from cbam3d.parsing import CommandParser
from cbam3d.resources import find_recipe
from cbam3d.sources import progress_over, refuse_leaks, render_motion, split_manifest, tell_listing
from cbam3d.video.fingerprint import near_duplicates
from cbam3d.video.probe import Copies

_MOST_CLASSES_SHOWN = 40


def prepare(arguments: list[str]) -> None:
    """Read every video once, and write what is known of it to ROOT/manifest.csv: training then opens no video ahead.
    When broken off, the same command goes on where it stopped."""
    given = _parse(arguments)
    console = Console(soft_wrap=True, markup=False, highlight=False)
    recipe, root = load_recipe(find_recipe(given.recipe)), Path(given.root)
    if recipe.kind != "video":
        raise InputError(f"{recipe.name} holds images, which need no preparation")
    copies = _copies(given, root)
    path = root / "manifest.csv"
    if path.exists() and copies is None:
        raise InputError(f"{path} exists: remove it to read every video again")
    if recipe.name == "motion":
        render_motion(root, console)
    table = read_manifest(path, given.allow_outside) if path.exists() else None
    listing = _list(given, root, recipe, table)
    tell_listing(listing, console)
    journal = root / "manifest.csv.unfinished"
    try:
        text = f"reading every video of {root}" + (f", writing copies to {copies.root}" if copies else "")
        scan = scan_videos(
            root,
            listing,
            given.workers,
            given.timeout_seconds,
            journal,
            copies,
            progress_over(console, text),
        )
        if not path.exists():
            write_manifest(scan.manifest, path)
        if copies is not None:
            write_manifest(copies_manifest(copies, scan.manifest), copies.root / "manifest.csv")
        journal.unlink(missing_ok=True)
    except KeyboardInterrupt:
        console.print("broken off; the same command goes on from here", style="yellow")
        raise
    except OSError as error:
        raise InputError(f"{error.filename or root}: cannot be written ({error.strerror})") from None
    _report(scan, given, recipe, root, console)
    console.print(f"{counted(len(scan.manifest), 'video')}, {scan.manifest.usable.sum()} usable: {path}")
    if copies is not None:
        console.print(f"train on the copies with --data.root {copies.root}")


def parser() -> CommandParser:
    """The options of the command."""
    command = CommandParser("prepare", prepare.__doc__)
    command.add_argument("recipe", help="name of a recipe (cbam3d list), or path of a folder with a recipe.yaml")
    command.add_argument("--root", required=True, help="folder of the data")
    command.add_argument("--groups", help="CSV with columns path and group (and label)")
    command.add_argument("--annotations", help="the data set's own lists: their folder, or one of them")
    command.add_argument("--split", type=int, default=1, help="number of the split that is checked for leaks")
    command.add_argument("--allow-leaks", action="store_true", help="accept groups in training and held out")
    command.add_argument("--allow-outside", action="store_true", help="follow links that lead out of the folder")
    command.add_argument("--workers", type=int, help="processes that decode; one a core if not given")
    command.add_argument("--timeout-seconds", type=float, default=600.0, help="how long a file may take")
    command.add_argument("--short-side", type=int, help="write copies, the shorter side this many pixels long")
    command.add_argument("--gop", type=int, default=12, help="frames from keyframe to keyframe of a copy")
    command.add_argument("--copies", help="folder of the copies; ROOT-<short side>p if not given")
    return command


def _parse(arguments: list[str]) -> Namespace:
    given = parser().parse_args(arguments)
    for name, value in (("workers", given.workers), ("short-side", given.short_side), ("gop", given.gop)):
        if value is not None and value < 1:
            raise InputError(f"prepare: --{name} must be at least 1, got {value}")
    if given.copies and given.short_side is None:
        raise InputError("prepare: --copies has no effect without --short-side")
    return given


def _copies(given: Namespace, root: Path) -> Copies | None:
    if given.short_side is None:
        return None
    place = (
        Path(given.copies) if given.copies else root.resolve().with_name(f"{root.resolve().name}-{given.short_side}p")
    )
    if (place / "manifest.csv").exists():
        raise InputError(f"{place / 'manifest.csv'} exists: remove it to write the copies again")
    if place.resolve().is_relative_to(root.resolve()):
        raise InputError(f"{place}: copies must not lie among the originals")
    return Copies(place, given.short_side, given.gop)


def _list(given: Namespace, root: Path, recipe: Recipe, manifest: Manifest | None) -> Listing:
    if manifest is not None:  # what was decided there holds for the copies
        columns = ("path", "label", "group", "split")
        rows = [{name: row[name] for name in columns} for row in manifest.select(manifest.usable).rows()]
        real_root = os.path.realpath(root)
        for row in rows:
            outside = not given.allow_outside and leads_out(root / row["path"], real_root)
            row["problem"] = "a link that leads out of the folder" if outside else ""
        return Listing(rows, [])
    groups, annotations = (Path(place) if place else None for place in (given.groups, given.annotations))
    return list_videos(root, recipe, groups, annotations, given.split, given.allow_outside)


def _report(scan: Scan, given: Namespace, recipe: Recipe, root: Path, console: Console) -> None:
    """Classes, problems and duplicates; last, leaks, which are an error.

    Raises:
        InputError: groups with videos in training and held out.
    """
    _show_classes(scan.manifest, console)
    for name, problem in zip(scan.manifest.path, scan.manifest.problem, strict=True):
        if problem:
            console.print(f"{name}: {problem}", style="yellow")
    data = Data(recipe=given.recipe, root=given.root, annotations=given.annotations, split=given.split)
    divided = split_manifest(scan.manifest, data, recipe)
    _write_duplicates(divided, scan.fingerprints, root / "duplicates.csv", console)
    if not given.allow_leaks:
        refuse_leaks(divided)


def _show_classes(manifest: Manifest, console: Console) -> None:
    codes, names = manifest.label.codes()
    found, usable = (np.bincount(part, minlength=len(names)) for part in (codes, codes[manifest.usable]))
    if len(names) > _MOST_CLASSES_SHOWN:
        console.print(f"{len(names)} classes of {usable.min()} to {usable.max()} usable videos each")
        return
    table = Table("class", "videos", "usable")
    for name, count, good in zip(names, found, usable, strict=True):
        table.add_row(name or "(none)", str(count), str(good))
    console.print(table)


def _write_duplicates(manifest: Manifest, fingerprints: list[bytes], path: Path, console: Console) -> None:
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
    number = f"{counted(len(pairs), 'pair')} of near-duplicates"
    console.print(f"{number}, {across} of them across splits: {path}", style="yellow")
