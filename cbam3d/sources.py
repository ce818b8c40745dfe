"""A configuration -> the data set that it names, ready to be loaded."""

import os
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from cbam3d.config import Config, Data
from cbam3d.data import motion
from cbam3d.data.images import load_folder, load_torchvision
from cbam3d.data.listing import Listing, find_videos, list_videos, lists_of
from cbam3d.data.loader import Samples
from cbam3d.data.manifest import Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.sampling import Sampling
from cbam3d.data.scan import scan_videos
from cbam3d.data.split import assign_splits, class_names, leaking_groups, rows_of
from cbam3d.data.videos import Clips, VideoDataset
from cbam3d.errors import InputError, counted
from cbam3d.resources import find_recipe
from cbam3d.video.container import VIDEO_SUFFIXES
from cbam3d.video.probe import file_state


@dataclass(frozen=True)
class Source:
    """A data set, ready to be loaded: its splits, its classes, and the files that cannot be used."""

    recipe: Recipe
    classes: list[str]
    train: Samples
    validation: Samples  # scored while training, chooses the best epoch; the same as test where there is no val
    test: Samples  # scored at the end
    problems: list[tuple[str, str]]
    manifest: Manifest | None = None

    @property
    def images(self) -> bool:
        return self.recipe.kind == "image"


def open_source(config: Config, console: Console, expected: list[str] | None = None) -> Source:
    """Find the files that the configuration names.

    Args:
        config: which.
        console: what is found is said there.
        expected: the classes that the data must have; they are compared before videos are read.

    Raises:
        InputError: a missing or empty folder, fewer than two classes, a split without items, leaking groups.
    """
    recipe = load_recipe(find_recipe(config.data.recipe))
    for section in ("augment", "eval"):
        if getattr(config, section).flip and recipe.flip_keeps_label is False:
            raise InputError(f"{section}.flip: in {recipe.name} a mirror image has another label")
    if config.data.on_device and recipe.kind == "video":
        raise InputError(f"data.on_device holds images, {recipe.name} has videos")
    if recipe.kind == "image":
        source = _open_images(config, recipe, console)
    else:
        source = _open_videos(config, recipe, console, expected)
    refuse_other_classes(source.classes, expected, config.data.root)
    for split, data, other in (("training", source.train, source.test), ("held-out", source.test, source.train)):
        if not len(data):
            text = f"{config.data.root}: no usable {split} {recipe.kind}"
            if len(other):
                text += f": the {len(other)} usable ones are {'held out' if split == 'training' else 'for training'}"
            if source.problems:
                number = counted(len(source.problems), "unusable file")
                text += f"; of {number} the first is {': '.join(source.problems[0])}"
            raise InputError(text)
    return source


def refuse_other_classes(found: list[str], expected: list[str] | None, root: str) -> None:
    """Raise InputError where the classes that were found are not those that were expected."""
    if expected is not None and found != expected:
        here, there = (", ".join(names[:5]) for names in (found, expected))
        raise InputError(f"{root} has the classes {here}, the checkpoint was trained on {there}")


def _open_videos(config: Config, recipe: Recipe, console: Console, expected: list[str] | None) -> Source:
    data = config.data
    manifest = split_manifest(load_manifest(config, recipe, console, expected), data, recipe)
    if not data.allow_leaks:
        refuse_leaks(manifest)
    classes = class_names(manifest, recipe)
    lost = manifest.select(~manifest.usable)
    problems = list(zip(lost.path, lost.problem, strict=True))
    _check_classes(manifest.select(manifest.usable).label.codes()[1], classes, problems, data.root, console)
    _tell_damaged(manifest, console)
    sampling = sampling_of(data)
    _tell_short(manifest, sampling, console)

    train_clips = partial(sampling.random, num_clips=data.clips_per_visit)
    test_clips = partial(_test_clips, sampling=sampling, num_clips=config.eval.num_clips, order=config.eval.frame_order)

    options = {} if data.decoder == "torchcodec" else {"timeout_seconds": data.timeout_seconds}

    def dataset(split: str, clips: Clips) -> VideoDataset:
        return VideoDataset(
            Path(data.root),
            rows_of(manifest, split),
            classes,
            clips,
            data.short_side,
            config.run.seed,
            allow_outside=data.allow_outside,
            decoder=data.decoder,
            corrupt=data.corrupt_frames,
            **options,
        )

    validation, test = _held_out(manifest.split.codes()[1])
    tested = dataset(test, test_clips)
    validated = tested if validation == test else dataset(validation, test_clips)
    return Source(recipe, classes, dataset("train", train_clips), validated, tested, problems, manifest)


def sampling_of(data: Data) -> Sampling:
    """How clips are taken from videos."""
    return Sampling(data.num_frames, data.stride, data.fps, data.sampling == "segments", data.short_videos)


def with_manifest_of(folder: Path, config: Config) -> Config:
    """The configuration with the table of videos that the run in `folder` has kept, in place of groups and lists: the
    same files, the same split."""
    path = folder / "manifest.csv"
    if not path.is_file():
        return config
    return replace(config, data=replace(config.data, manifest=str(path), groups=None, annotations=None))


def _test_clips(
    video_frames: int, video_fps: float, rng: np.random.Generator, sampling: Sampling, num_clips: int, order: str
) -> list[list[int]]:
    clips = sampling.uniform(video_frames, video_fps, num_clips)
    if order == "shuffled":
        return [[int(frame) for frame in rng.permutation(clip)] for clip in clips]
    if order == "repeated":
        return [[clip[len(clip) // 2]] * len(clip) for clip in clips]
    return clips


def _tell_damaged(manifest: Manifest, console: Console) -> None:
    damaged = manifest.select(~manifest.problem.equals("") & manifest.usable)
    for path, problem in list(zip(damaged.path, damaged.problem, strict=True))[:10]:
        console.print(f"damaged {path}: {problem}; its readable frames are used")
    if len(damaged) > 10:
        rest = len(damaged) - 10
        console.print(f"… and {rest} more damaged videos: see the problem column of the run's manifest.csv")


def _tell_short(manifest: Manifest, sampling: Sampling, console: Console) -> None:
    usable = manifest.select(manifest.usable)
    rates, places = np.unique(usable.fps, return_inverse=True)
    needed = np.array([sampling.needed_frames(float(rate)) for rate in rates])[places]
    if num_short := int((usable.num_frames < needed).sum()):
        done = "looped" if sampling.short == "loop" or sampling.segments else "padded"
        number = f"{num_short} of {counted(len(usable), 'video')}"
        console.print(f"{number} shorter than a clip, and {done}", style="yellow")


def split_manifest(manifest: Manifest, data: Data, recipe: Recipe) -> Manifest:
    """The table with its split column filled, as the configuration says.

    Raises:
        InputError: what `lists_of` and `assign_splits` raise.
    """
    listed = {}
    if recipe.lists_have_numbers:
        annotations = Path(data.annotations) if data.annotations else None
        listed = lists_of(recipe, Path(data.root), annotations, data.split)
    return assign_splits(manifest, recipe, data.split, data.test_fraction, listed)


def refuse_leaks(manifest: Manifest) -> None:
    """Raise InputError where a group has usable videos in training and held out."""
    if leaks := leaking_groups(manifest.select(manifest.usable)):
        names = ", ".join(leaks[:3]) + (", …" if len(leaks) > 3 else "")
        raise InputError(
            f"{len(leaks)} groups have videos in training and held out: {names} "
            "(data.allow_leaks, or --allow-leaks of prepare, accepts it)"
        )


def _held_out(splits: Collection[str]) -> tuple[str, str]:
    """The splits to score while training and at the end: val and test, or one of them for both."""
    test = "test" if "test" in splits else "val"
    return "val" if "val" in splits else test, test


def load_manifest(config: Config, recipe: Recipe, console: Console, expected: list[str] | None = None) -> Manifest:
    """The table of the videos: the file that is named, the one in the folder, or a scan.

    Raises:
        InputError: an unreadable table, groups beside a table that has its own, or what `list_videos` raises.
    """
    data, root = config.data, Path(config.data.root)
    path = Path(data.manifest) if data.manifest else root / "manifest.csv"
    if data.manifest or path.is_file():
        for key in ("groups",) if recipe.lists_have_numbers else ("groups", "annotations"):
            if getattr(data, key):
                again = f"remove that table and cbam3d prepare {data.recipe} --root {root} --{key} {getattr(data, key)}"
                other = "data.manifest" if data.manifest else again
                raise InputError(f"data.{key} has no effect beside {path}: remove it, or {other}")
        console.print(f"videos as listed in {path}")
        manifest = read_manifest(path, data.allow_outside)
        if not data.manifest:
            _tell_added(data, path, manifest, console)
        return manifest
    if recipe.name == "motion":
        render_motion(root, console)
    groups, annotations = (Path(place) if place else None for place in (data.groups, data.annotations))
    listing = list_videos(root, recipe, groups, annotations, data.split, data.allow_outside)
    labels = sorted({row["label"] for row in listing.found if not row["problem"]})
    if not recipe.classes and not set(labels) >= set(expected or ()):  # further ones may be of unreadable files
        refuse_other_classes(labels, expected, data.root)
    tell_listing(listing, console)
    progress = progress_over(console, f"reading every video of {root}")
    manifest = scan_videos(root, listing, progress=progress).manifest
    if recipe.name == "motion":
        write_manifest(manifest, path)
    return manifest


def tell_listing(listing: Listing, console: Console) -> None:
    """Say what lists name and the folder does not have, what is no video by its name, and labels that look like two."""
    if listing.missing:
        number = counted(len(listing.missing), "listed video")
        console.print(f"not on disk: {number}, the first is {listing.missing[0]}", style="yellow")
    if listing.ignored:
        number = counted(len(listing.ignored), "file")
        console.print(f"no videos by their suffix: {number}, the first is {listing.ignored[0]}", style="yellow")
    if listing.outside_folders:
        number = counted(len(listing.outside_folders), "link")
        text = f"lead out of the folder, and are not followed: {number}, the first is {listing.outside_folders[0]}"
        console.print(f"{text} (data.allow_outside, or --allow-outside of prepare, follows them)", style="yellow")
    if several := sorted({row["label"] for row in listing.found if "|" in row["label"]}):
        text = "is taken for one class, not for several: a video has one label"
        console.print(f"the label {several[0]!r} {text}", style="yellow")


def _tell_added(data: Data, path: Path, manifest: Manifest, console: Console) -> None:
    """Say which videos came into the folders of a table after it was written. The files are looked through only where a
    folder has changed since, or has videos of its own."""
    root, written, listed = Path(data.root), path.stat().st_mtime_ns, set(manifest.path)
    folders = {parent for name in listed for parent in PurePosixPath(name).parents} - {PurePosixPath(".")}
    top = list(os.scandir(root)) if root.is_dir() else []
    new_tops = [item for item in top if item.is_dir() and PurePosixPath(item.name) not in folders]
    changed = any(_changed_after(root / folder, written) for folder in folders)
    changed |= any(_changed_after(Path(item.path), written) for item in new_tops)
    changed |= any(item.name not in listed and Path(item.name).suffix.lower() in VIDEO_SUFFIXES for item in top)
    if not changed:
        return
    try:
        found = find_videos(root, data.allow_outside)
    except InputError:  # none is left: reading says so
        return
    if added := [name for name in found.videos if name not in listed and name not in found.outside]:
        text = (
            f"{counted(len(added), 'video')} not in that table, the first is {added[0]}: remove the table to read them"
        )
        console.print(text, style="yellow")


def _changed_after(folder: Path, time_ns: int) -> bool:
    try:
        return folder.stat().st_mtime_ns > time_ns
    except OSError:
        return False


def refuse_changed(manifest: Manifest, root: Path, console: Console) -> None:
    """Hold the files of a run's table against those on disk.

    Raises:
        InputError: a file that has another size now.
    """
    known = manifest.select(manifest.usable & (manifest.num_bytes > 0))
    changed, touched = [], []
    for path, size, time_ns in zip(known.path, known.num_bytes, known.changed_ns, strict=True):
        state = file_state(root / path)
        if state != (0, 0) and state != (size, time_ns):  # one that is gone, reading says
            (touched if state[0] == size else changed).append(path)
    if changed:
        raise InputError(
            f"{counted(len(changed), 'video')} of {root} changed since the run began, the first is {changed[0]}: "
            "begin a new run, or bring the files back"
        )
    if touched:
        number = counted(len(touched), "video")
        console.print(
            f"{number} of {root} with another time than when the run began, the first is {touched[0]}", style="yellow"
        )


def render_motion(root: Path, console: Console) -> None:
    """Render the demo's videos, where they are missing.

    Raises:
        InputError: the folder holds something else.
    """
    if root.is_dir() and (foreign := sorted({item.name for item in root.iterdir()} - motion.CLASSES.keys())):
        raise InputError(f"{root} holds {foreign[0]}: the demo's videos are not rendered there; name a data.recipe")
    console.print(f"rendering {len(motion.CLASSES) * motion.NUM_GROUPS} videos of eight motions into {root} …")
    motion.render(root)


def _open_images(config: Config, recipe: Recipe, console: Console) -> Source:
    data, root = config.data, Path(config.data.root)
    if recipe.torchvision and _may_download(root):
        (loaded, found), problems = load_torchvision(root, recipe, data.short_side), []
        classes = recipe.classes or found
    else:
        progress = progress_over(console, f"reading every image of {root}")
        loaded, classes, problems = load_folder(root, recipe, data.short_side, data.test_fraction, progress)
    labels = {classes[label] for items in loaded.values() for label in items.labels.unique()}
    _check_classes(sorted(labels), classes, problems, data.root, console)
    validation, test = _held_out(loaded)
    if "train" not in loaded or test not in loaded:
        raise InputError(f"{root}: found only the split {', '.join(loaded)}, training needs train and test (or val)")
    return Source(recipe, classes, loaded["train"], loaded[validation], loaded[test], problems)


def _may_download(root: Path) -> bool:
    """Whether torchvision may use the folder: it is absent or empty, or holds torchvision's files already."""
    names = [item.name for item in root.iterdir()] if root.is_dir() else []
    return not names or any(name.startswith("cifar-") for name in names)


def _check_classes(
    found: list[str], classes: list[str], problems: list[tuple[str, str]], root: str, console: Console
) -> None:
    if len(found) < 2:
        names = ", ".join(found) or "none"
        lost = f" (of {len(problems)} unusable files the first is {': '.join(problems[0])})" if problems else ""
        raise InputError(f"{root}: at least 2 classes are needed, found {names}{lost}")
    if absent := [name for name in classes if name not in found]:
        names = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        console.print(f"{root}: nothing of {len(absent)} of {len(classes)} classes: {names}", style="yellow")


def progress_over(console: Console, text: str) -> Callable[[Iterable[Any], int], Iterable[Any]]:
    """A function that shows the progress of an iteration of known length."""

    def wrap(items: Iterable[Any], total: int) -> Iterable[Any]:
        console.print(f"{text} ({total} files) …")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            yield from progress.track(items, total=total, description=text)

    return wrap
