"""List the videos of a folder, with labels, groups and splits from their paths and annotation lists."""

import csv
import os
from collections import defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from cbam3d.data.annotations import Annotation, csv_rows, one_spelling, read_annotations, suffix_of
from cbam3d.data.recipe import SPLITS, Recipe
from cbam3d.errors import InputError, counted, unknown
from cbam3d.files import is_hidden, leads_out
from cbam3d.storage import Place, Url, files_below
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.frames import IMAGE_SUFFIXES

UNLISTED = "not in the annotations"
_MODALITIES = {"rgb", "flow", "flow_x", "flow_y", "u", "v", "depth", "ir"}  # names of folders, in any case


@dataclass(frozen=True)
class Listing:
    """The videos of a folder, or parts of them, as rows with path, label, group, split and problem; of a part, with
    start and end in seconds, which is infinite for the end of the video."""

    found: list[dict[str, Any]]  # by path
    missing: list[str]  # in the groups file or the annotation lists, but not on disk
    ignored: list[str] = field(default_factory=list)  # files in subfolders without a video suffix
    outside_folders: list[str] = field(default_factory=list)  # links to folders outside, not followed
    states: dict[str, tuple[int, int]] = field(default_factory=dict)  # size and time of the files of a remote folder
    several: bool = False  # whether a video may have several labels, see `Manifest`


def list_videos(
    root: Place,
    recipe: Recipe,
    groups_file: Path | None = None,
    annotations: Path | None = None,
    split: int = 1,
    allow_outside: bool = False,
) -> Listing:
    """Find the videos of a folder and their annotations, without opening any video.

    Args:
        root: the folder.
        recipe: derives label and group from a path.
        groups_file: CSV with the columns path and group; optionally label, which must agree, and split (train,
            val, test or unused), which takes precedence. They hold for all parts of a video.
        annotations: the annotation lists: their folder, or one of them; None searches the root, or the folders in it.
        split: number of the split in these lists.
        allow_outside: follow links to outside the folder; otherwise they are unusable.

    Raises:
        InputError: no such folder, no video in it, none that matches the recipe, or lists that do not match
            the folder.
    """
    files = find_videos(root, allow_outside, frames=recipe.kind == "frames")
    paths, outside = files.videos, set(files.outside)
    listed = lists_of(recipe, root, annotations, split)
    matches = {path: recipe.match(path) for path in paths}
    videos = {path: recipe.video_of(path, matched, listed) for path, matched in matches.items()}
    if not (listed and recipe.lists_have_labels):  # folders decide
        if recipe.kind == "frames":
            _refuse_modalities(root, paths)
        for path in paths:
            recipe.refuse_split_as_label(root, path)
    instead, rows = _listed_instead(videos, listed), []
    for path, matched in matches.items():
        for said in listed.get(videos[path]) or [Annotation()]:
            rows.append({"path": path, **_known_of(path, matched, recipe, listed, said)})
            if path in instead:
                rows[-1]["problem"] = f"the lists mean one file of this name, taken is {instead[path]}"
                break
    for row in rows:
        if row["path"] in outside:
            row["problem"] = "a link that leads out of the folder (allow_outside accepts it)"
    if all(row["problem"] for row in rows):
        flat = all("/" not in path for path in paths) and "{label}/" in recipe.patterns[-1]
        hint = "; the videos of each class belong in a folder with its name" if flat else ""
        raise InputError(f"{root}: none of {len(rows)} videos fits; {rows[0]['path']}: {rows[0]['problem']}{hint}")
    missing = [] if groups_file is None else _apply_groups(rows, groups_file, root)
    missing = [*missing, *sorted(listed.keys() - set(videos.values()))]
    several = any(said.several for parts in listed.values() for said in parts)
    return Listing(rows, missing, files.ignored, files.outside_folders, files.states, several)


def _refuse_modalities(root: Place, paths: list[str]) -> None:
    """Raise InputError where a folder has images of several kinds of one video: each would be a video of its own."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for parent, _, name in (path.rpartition("/") for path in paths):
        if name.lower() in _MODALITIES:
            kinds[parent].append(name)
    if several := next((parent for parent, names in kinds.items() if len(names) > 1), None):
        names = ", ".join(kinds[several])
        raise InputError(f"{root}: {several} has images of several kinds ({names}): keep one kind below the root")


def _listed_instead(videos: dict[str, str], listed: dict[str, list[Annotation]]) -> dict[str, str]:
    """Files of a name that several have, in place of which another is meant: that with the suffix in the lists, or else
    the first.

    Args:
        videos: by path, without suffix.
        listed: of the lists, by video.
    """
    paths: dict[str, list[str]] = defaultdict(list)
    for path, video in videos.items():
        if video in listed:
            paths[video].append(path)
    instead = {}
    for video, found in paths.items():
        named = [path for path in found if suffix_of(path) in listed[video][0].suffixes] or found[:1]
        instead |= {path: named[0] for path in found if path not in named}
    return instead


def lists_of(recipe: Recipe, root: Place, annotations: Path | None, split: int) -> dict[str, list[Annotation]]:
    """Read the annotation lists by video; {} if there are none. Lists are files of this machine: they are not searched
    for at a URL.

    Raises:
        InputError: `annotations` does not exist or contains none of the lists.
    """
    place = annotations or root
    if isinstance(place, Url):
        return {}
    if recipe.annotations is None:
        if annotations is not None:
            raise InputError(f"{annotations}: {recipe.name} has no annotations")
        return {}
    if not place.exists():
        raise InputError(f"{place}: no such file or folder")
    listed = read_annotations(place, recipe.annotations, split)
    if annotations is not None and not listed:
        names = " or ".join(recipe.annotations.files)
        raise InputError(f"{annotations}: no list of {recipe.name} with split {split} ({names})")
    return listed


@dataclass(frozen=True)
class Found:
    """The contents of a folder, each list sorted: videos; links to videos and folders outside it; files in subfolders
    without a video suffix."""

    videos: list[str]
    outside: list[str]
    outside_folders: list[str]
    ignored: list[str]
    states: dict[str, tuple[int, int]] = field(default_factory=dict)  # size and time, of a remote folder


def find_videos(root: Place, allow_outside: bool = False, frames: bool = False) -> Found:
    """Find videos by their suffixes, or folders that hold images.

    Args:
        root: the folder.
        allow_outside: follow links to outside.
        frames: find folders of images.

    Raises:
        InputError: a missing or unreadable folder, or no video in it.
    """
    if isinstance(root, Url):
        return _find_remote(root, frames)
    if not root.is_dir():
        raise InputError(f"{root}: no such folder")
    real_root = os.path.realpath(root)
    found, seen = Found([], [], [], []), {real_root}

    def refuse(error: OSError) -> None:
        raise InputError(f"{error.filename}: cannot be read ({error.strerror})")

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        below = Path(folder).relative_to(root)
        inside = []
        for name in sorted(name for name in folders if not name.startswith(".")):
            real = os.path.realpath(os.path.join(folder, name))
            if not allow_outside and leads_out(real, real_root):
                found.outside_folders.append((below / name).as_posix())
            elif real not in seen:  # links may form a cycle
                inside.append(name)
                seen.add(real)
        folders[:] = inside
        if frames:
            if any(Path(name).suffix.lower() in IMAGE_SUFFIXES for name in names) and below.parts:
                found.videos.append(below.as_posix())
            continue
        for name in (name for name in names if not name.startswith(".")):
            path = (below / name).as_posix()
            if Path(name).suffix.lower() not in VIDEO_SUFFIXES:
                found.ignored.extend([path] if below.parts else [])
                continue
            found.videos.append(path)
            place = os.path.join(folder, name)
            if not allow_outside and os.path.islink(place) and leads_out(place, real_root):
                found.outside.append(path)
    if not found.videos:
        raise _none_in(root, "folder of images" if frames else "video", found.ignored)
    for names in (found.videos, found.outside, found.outside_folders, found.ignored):
        names.sort()
    return found


def _find_remote(root: Url, frames: bool) -> Found:
    if frames:
        raise InputError(f"{root}: folders of images are read from disks; prepare copies of them (--short-side)")
    states = files_below(root)
    names = sorted(name for name in states if not is_hidden(PurePosixPath(name)))
    videos = [name for name in names if os.path.splitext(name)[1].lower() in VIDEO_SUFFIXES]
    ignored = sorted({name for name in names if "/" in name} - set(videos))
    if not videos:
        raise _none_in(root, "video", ignored)
    return Found(videos, [], [], ignored, states)


def _none_in(root: Place, what: str, ignored: list[str]) -> InputError:
    other = f"; {counted(len(ignored), 'other file')}, e.g. {min(ignored)}" if ignored else ""
    return InputError(f"{root}: no {what} in this folder{other}")


def _known_of(
    path: str, matched: dict[str, str] | None, recipe: Recipe, listed: Collection[str], said: Annotation
) -> dict[str, Any]:
    """Label, group, split, times and problem, as known from path and lists."""
    fields = matched or {}
    label, problem = said.label if said.several else said.label or fields.get("label", ""), ""
    if recipe.classes and (odd := [name for name in said.names or [label] if name and name not in recipe.classes]):
        problem = unknown(f"class of {recipe.name}", odd[0], recipe.classes)
    elif not label and not said.several:
        patterns = " or ".join(recipe.patterns)
        has_lists = matched or (listed and recipe.lists_have_labels)
        problem = UNLISTED if has_lists else f"path does not fit {patterns}"
    elif recipe.lists_have_labels and listed and not said.label and not said.several:
        problem = UNLISTED
    group = recipe.group.format(**fields) if recipe.group and matched else path
    return {
        "label": label,
        "group": said.group or group,
        "split": said.split or fields.get("split") or "",
        "problem": problem,
        "start": said.start,
        "end": said.end,
    }


def _apply_groups(rows: list[dict[str, Any]], groups_file: Path, root: Place) -> list[str]:
    """Set the rows' groups from the file; return paths in the file that are not in the folder."""
    try:
        entries: dict[str, dict[str, Any]] = {}
        for entry in csv_rows(groups_file):
            if entries.setdefault(entry["path"], entry) != entry:
                raise InputError(f"{groups_file}: {entry['path']} is listed twice, with different entries")
            if entry.get("start") or entry.get("end"):
                raise InputError(f"{groups_file}: parts of videos are listed in data.annotations, not in groups")
        groups = {path: one_spelling(entry["group"]) for path, entry in entries.items()}
        if empty := next((path for path, group in groups.items() if not group), None):
            raise InputError(f"{groups_file}: no group for {empty}")
    except KeyError as error:
        raise InputError(f"{groups_file}: no column {error}") from None
    except OSError as error:
        raise InputError(f"{groups_file}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{groups_file}: {error}") from None
    missing = [row["path"] for row in rows if row["path"] not in groups and not row["problem"]]
    if missing:
        number = counted(len(missing), "video")
        raise InputError(f"{groups_file}: no group for {number} of {root}, the first is {missing[0]}")
    for row in (row for row in rows if row["path"] in groups):
        row["group"] = groups[row["path"]]
        row["split"] = entries[row["path"]].get("split", "").strip() or row["split"]
        if row["split"] not in ("", *SPLITS, "unused"):
            raise InputError(f"{groups_file}: {row['path']}: {unknown('split', row['split'], [*SPLITS, 'unused'])}")
        label = one_spelling(entries[row["path"]].get("label", ""))
        if label and label != row["label"] and not row["problem"] and not row["end"]:
            row["problem"] = f"labelled {label!r} in {groups_file.name}, but in the folder of {row['label']!r}"
    return sorted(groups.keys() - {row["path"] for row in rows})
