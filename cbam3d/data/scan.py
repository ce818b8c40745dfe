"""A folder of videos -> its manifest: every file is found, matched to the recipe and decoded once."""

import csv
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cbam3d.data.manifest import Manifest, from_rows
from cbam3d.data.probe import probe_video
from cbam3d.data.recipe import Recipe
from cbam3d.errors import InputError, unknown

_SUFFIXES = "3gp asf avi divx f4v flv gif m2ts m4v mkv mov mp4 mpeg mpg mts mxf ogv ts vob webm wmv"
VIDEO_SUFFIXES = {f".{name}" for name in _SUFFIXES.split()}


def scan_videos(
    root: Path,
    recipe: Recipe,
    groups_file: Path | None = None,
    workers: int | None = None,
    progress: Callable[[Iterable[Any], int], Iterable[Any]] = lambda items, total: items,
) -> Manifest:
    """Build the manifest of a folder, sorted by path. The split column holds what the paths say.

    Args:
        root: the folder.
        recipe: tells label and group from a path.
        groups_file: CSV with the columns path and group, and optionally label, which must then agree.
        workers: threads that decode; None for one a core.
        progress: wraps the iteration over the files, given it and their number.

    Raises:
        InputError: no such folder, no video in it, none that fits the recipe, or a groups file that
            does not fit the folder.
    """
    rows = [{"path": path, **_describe(path, recipe)} for path in _find_videos(root)]
    if all(row["problem"] for row in rows):
        raise InputError(f"{root}: none of {len(rows)} videos fits; {rows[0]['path']}: {rows[0]['problem']}")
    if groups_file is not None:
        _apply_groups(rows, groups_file, root)
    with ThreadPoolExecutor(workers or os.cpu_count()) as pool:  # FFmpeg decodes outside of the interpreter's lock
        infos = pool.map(lambda row: probe_video(root / row["path"]), rows)
        for row, info in zip(rows, progress(infos, len(rows)), strict=True):
            measured = asdict(info)
            if row["problem"]:  # a good file in the wrong place is not used
                measured |= {"problem": row["problem"], "num_frames": 0}
            row |= measured
    return from_rows(sorted(rows, key=lambda row: row["path"]))


def _find_videos(root: Path) -> list[str]:
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    paths, seen = [], {root.resolve()}
    for folder, folders, names in os.walk(root, followlinks=True):
        real = {name: Path(folder, name).resolve() for name in sorted(folders) if not name.startswith(".")}
        folders[:] = [name for name, place in real.items() if place not in seen]  # a link may lead back
        seen |= set(real.values())
        paths += [
            Path(folder, name).relative_to(root).as_posix()
            for name in names
            if Path(name).suffix.lower() in VIDEO_SUFFIXES and not name.startswith(".")
        ]
    if not paths:
        raise InputError(f"{root}: no video in this folder")
    return sorted(paths)


def _describe(path: str, recipe: Recipe) -> dict[str, str]:
    """Label, group, split and problem, as far as the path tells."""
    fields = recipe.match(path)
    if fields is None:
        patterns = " or ".join(recipe.patterns)
        return {"label": "", "group": path, "split": "", "problem": f"path does not fit {patterns}"}
    label = fields["label"]
    problem = ""
    if recipe.classes and label not in recipe.classes:
        problem = unknown(f"class of {recipe.name}", label, recipe.classes)
    group = recipe.group.format(**fields) if recipe.group else path
    return {"label": label, "group": group, "split": fields.get("split", ""), "problem": problem}


def _apply_groups(rows: list[dict[str, Any]], groups_file: Path, root: Path) -> None:
    """Put the groups of the file into the rows, and hold the two against each other."""
    try:
        with open(groups_file, newline="", encoding="utf-8-sig") as file:
            entries = {entry["path"]: entry for entry in csv.DictReader(file)}
        groups = {path: entry["group"] for path, entry in entries.items()}
        if empty := next((path for path, group in groups.items() if not group), None):
            raise InputError(f"{groups_file}: no group for {empty}")
    except KeyError as error:
        raise InputError(f"{groups_file}: no column {error}") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{groups_file}: {error}") from None
    missing = [row["path"] for row in rows if row["path"] not in groups]
    if missing:
        raise InputError(f"{groups_file}: no group for {len(missing)} videos of {root}, the first is {missing[0]}")
    for row in rows:
        row["group"] = groups[row["path"]]
        label = entries[row["path"]].get("label")
        if label and label != row["label"] and not row["problem"]:
            row["problem"] = f"labelled {label!r} in {groups_file.name}, but in the folder of {row['label']!r}"
    found = {row["path"] for row in rows}
    for path in sorted(groups.keys() - found):  # named in the file, absent on disk: a lost video is said
        row = {"path": path, "label": entries[path].get("label") or "", "group": groups[path], "split": ""}
        rows.append({**row, "problem": "listed in the groups file, but not on disk"})
