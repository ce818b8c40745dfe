"""A configuration -> its data, split and ready to be loaded."""

import hashlib
import logging
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from cbam3d.config import Config, DataConfig
from cbam3d.config.bundled import find_recipe
from cbam3d.data.background import with_background
from cbam3d.data.images import load_folder, load_torchvision
from cbam3d.data.listing import UNLISTED
from cbam3d.data.loader import Samples
from cbam3d.data.manifest import Manifest
from cbam3d.data.recipe import SPLITS, Recipe, load_recipe
from cbam3d.data.sampling import Sampling
from cbam3d.data.split import class_names, divided_files, rows_of
from cbam3d.data.videos import Clips, VideoDataset
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.runs.duplicates import report_duplicates
from cbam3d.runs.progress import over_files, show_progress
from cbam3d.runs.rendered import render_missing
from cbam3d.runs.table import load_manifest, refuse_leaks, refuse_other_classes, split_manifest
from cbam3d.storage import BlockCache, Place, default_folder, exists, kept_copy, place_of
from cbam3d.video.index import INDEX_NAME, PacketIndex

_DIGITS = 12  # of the digest of a name

logger = logging.getLogger(__name__)


def _digest(name: str) -> str:
    return hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGITS]


@dataclass(frozen=True)
class Source:
    """A data set, ready to be loaded: its splits, its classes, and the files that cannot be used."""

    recipe: Recipe
    classes: list[str]
    train: Samples
    validation: Samples  # scored during training, selects the best epoch; the same as test where there is no val
    test: Samples  # scored at the end
    problems: list[tuple[str, str]]
    manifest: Manifest | None = None

    @property
    def images(self) -> bool:
        return self.recipe.kind == "image"

    @property
    def drawn(self) -> str:
        """What is held out: of videos a digest of each name, one after the other; of images that chance holds out
        (`data.test_fraction`) a digest of all, empty where folders decide."""
        if self.manifest is not None:
            return "".join(sorted(map(_digest, self._held_out_names())))
        if (self.recipe.match(self.test.name(0)) or {}).get("split"):
            return ""
        names = sorted(self.test.name(i) for i in range(len(self.test)))
        return hashlib.sha256(os.fsencode("\n".join(names))).hexdigest()

    def held_out_beyond(self, drawn: str) -> list[str]:
        """The names of the videos that are held out here, but not by a run, see `drawn`."""
        known = {drawn[i : i + _DIGITS] for i in range(0, len(drawn), _DIGITS)}
        return [name for name in self._held_out_names() if _digest(name) not in known]

    def _held_out_names(self) -> list[str]:
        assert self.manifest is not None
        return [name for split in ("val", "test") for name in rows_of(self.manifest, split).names()]

    @property
    def several(self) -> bool:
        """Whether items may have several labels."""
        return self.manifest is not None and self.manifest.several


def open_source(
    config: Config, expected: list[str] | None = None, progress: Progress = show_progress, to_train: bool = True
) -> Source:
    """Find the files that the configuration names.

    Args:
        config: which.
        expected: the classes that the data must have; they are compared before videos are read.
        progress: shows the reading of files.
        to_train: False where held-out items alone are needed.

    Raises:
        InputError: a missing or empty folder, fewer than two classes, a split without items, leaking groups.
    """
    recipe = load_recipe(find_recipe(config.data.recipe))
    for section in ("augment", "eval"):
        if getattr(config, section).flip and recipe.flip_keeps_label is False:
            raise InputError(f"{section}.flip: in {recipe.name} a mirror image has another label")
    if config.data.on_device and recipe.kind != "image":
        raise InputError(f"data.on_device holds images, {recipe.name} has videos")
    if recipe.kind == "image":
        source = _open_images(config, recipe, progress)
    else:
        source = _open_videos(config, recipe, expected, progress)
    refuse_other_classes(source.classes, expected, config.data.root)
    for split, data, other in (("training", source.train, source.test), ("held-out", source.test, source.train)):
        if not len(data) and (to_train or split == "held-out"):
            text = f"{config.data.root}: no usable {split} {recipe.item}"
            if len(other):
                text += f": the {len(other)} usable ones are {'held out' if split == 'training' else 'for training'}"
            if source.problems:
                number = counted(len(source.problems), "unusable file")
                text += f"; of {number} the first is {': '.join(source.problems[0])}"
            raise InputError(text)
    return source


def refuse_other_draw(source: Source, drawn: str, root: str) -> None:
    """Raise InputError where chance holds out other images than those that it held out when a run began; the videos of
    a run are those of its table."""
    if source.images and drawn and source.drawn and source.drawn != drawn:
        raise InputError(
            f"{root}: images came or went since the run began, so that others would be held out: divide them into "
            "the folders train and test"
        )


def mirrors(config: Config, source: Source) -> bool:
    """Whether clips are mirrored in training: as said, or else where the recipe declares that labels stay."""
    return source.recipe.flip_keeps_label is True if config.augment.flip is None else config.augment.flip


def as_decided(config: Config, source: Source) -> Config:
    """The configuration with what the data decides where it says nothing: the loss, and whether to mirror.

    Raises:
        InputError: cross-entropy, of which one class holds, for items that may have several.
    """
    config = config.override({"augment": {"flip": mirrors(config, source)}})
    chosen = config.train.loss
    if source.several and chosen == "cross_entropy":
        raise InputError(f"train.loss cross_entropy is for one label a video, those of {config.data.root} have several")
    if source.several and chosen is None:
        logger.info("videos may have several labels: train.loss bce")
        return config.override({"train": {"loss": "bce"}})
    return config


def _open_videos(config: Config, recipe: Recipe, expected: list[str] | None, progress: Progress) -> Source:
    data, root = config.data, place_of(config.data.root)
    manifest, fingerprints = load_manifest(config, recipe, expected, progress)
    manifest = split_manifest(manifest, data, recipe)
    if fingerprints:
        report_duplicates(manifest, fingerprints)
    sampling = sampling_of(data)
    if data.background:
        if not manifest.parts.any():
            raise InputError(f"data.background: {data.root} has no parts of videos, between which nothing happens")
        reach = np.where(manifest.split.equals("train"), data.reach, 0.0)  # as the clips of training alone do
        manifest = with_background(manifest, needed_frames(manifest, sampling) * (1 - reach))
    if not data.allow_leaks:
        refuse_leaks(manifest)
        if data.reach and (divided := divided_files(manifest)):
            raise InputError(
                f"data.reach: {divided[0]} has parts in several splits, whose frames training would see "
                "(data.allow_leaks accepts it)"
            )
    classes = class_names(manifest, recipe)
    unlisted = manifest.problem.equals(UNLISTED)
    if unlisted.any():
        number, first = counted(int(unlisted.sum()), "video"), manifest.path[int(np.flatnonzero(unlisted)[0])]
        logger.warning(f"{number} not in the annotations, and not used; the first is {first}")
    lost = manifest.select(~manifest.usable & ~unlisted)
    problems = list(zip(lost.names(), lost.problem, strict=True))
    _check_classes(manifest.classes(), classes, problems, data.root)
    _report_untrained(manifest)
    _report_damaged(manifest)
    _report_short(manifest, sampling)

    train_clips = partial(sampling.random, num_clips=data.clips_per_visit)
    test_clips = partial(_test_clips, sampling=sampling, num_clips=config.eval.num_clips, order=config.eval.frame_order)

    options: dict[str, Any] = {}
    if data.decoder != "torchcodec":
        options = {"timeout_seconds": data.timeout_seconds, "index": _index_of(data, root), "cache": cache_of(data)}

    def dataset(split: str, clips: Clips, reach: Callable[[float], int] | None = None) -> VideoDataset:
        return VideoDataset(
            root,
            rows_of(manifest, split),
            classes,
            clips,
            data.short_side,
            config.run.seed,
            allow_outside=data.allow_outside,
            least=data.sides,
            reach=reach,
            decoder=data.decoder,
            corrupt=data.corrupt_frames,
            **options,
        )

    validation, test = _held_out(manifest.split.codes()[1])
    tested = dataset(test, test_clips)
    validated = tested if validation == test else dataset(validation, test_clips)
    return Source(
        recipe,
        classes,
        dataset("train", train_clips, partial(_reach, sampling, data.reach)),
        validated,
        tested,
        problems,
        manifest,
    )


def sampling_of(data: DataConfig) -> Sampling:
    """How clips are taken from videos."""
    return Sampling(data.num_frames, data.stride, data.fps, data.sampling == "segments", data.short_videos)


def needed_frames(manifest: Manifest, sampling: Sampling) -> np.ndarray:
    """How many frames each video needs for a clip, (N,)."""
    rates, inverse = np.unique(manifest.fps, return_inverse=True)
    return np.array([sampling.needed_frames(float(rate)) for rate in rates])[inverse]


def _reach(sampling: Sampling, share: float, fps: float) -> int:
    """How many frames are that share of a clip."""
    return round(share * sampling.needed_frames(fps))


def _test_clips(
    video_frames: int, video_fps: float, rng: np.random.Generator, sampling: Sampling, num_clips: int, order: str
) -> list[list[int]]:
    clips = sampling.uniform(video_frames, video_fps, num_clips)
    if order == "shuffled":
        return [[int(frame) for frame in rng.permutation(clip)] for clip in clips]
    if order == "repeated":
        return [[clip[len(clip) // 2]] * len(clip) for clip in clips]
    return clips


def cache_of(data: DataConfig) -> BlockCache:
    """What is kept of remote files."""
    return BlockCache(_cache_folder(data) / "blocks", int(data.cache_gib * 2**30))


def _cache_folder(data: DataConfig) -> Path:
    return Path(data.cache) if data.cache else default_folder()


def _index_of(data: DataConfig, root: Place) -> PacketIndex | None:
    place = root / INDEX_NAME
    if not exists(place):
        return None
    try:
        return PacketIndex(kept_copy(place, _cache_folder(data) / "tables"), root)
    except InputError as error:  # videos are read all the same, only slower
        logger.warning(str(error))
        return None


def _report_untrained(manifest: Manifest) -> None:
    trained, *others = (set(rows_of(manifest, split).classes()) for split in SPLITS)
    held_out = set[str]().union(*others)
    if untested := sorted(trained - held_out) if held_out else []:
        names = ", ".join(untested[:5]) + (", …" if len(untested) > 5 else "")
        logger.warning(f"no held-out video of {names}: the scores say nothing about them")
    if lost := sorted(held_out - trained) if trained else []:
        names = ", ".join(lost[:5]) + (", …" if len(lost) > 5 else "")
        logger.warning(f"no training video of {names}: none of their held-out videos can be recognised")


def _report_damaged(manifest: Manifest) -> None:
    damaged = manifest.select(~manifest.problem.equals("") & manifest.usable)
    for path, problem in list(zip(damaged.names(), damaged.problem, strict=True))[:10]:
        logger.warning(f"damaged {path}: {problem}; its readable frames are used")
    if len(damaged) > 10:
        rest = len(damaged) - 10
        logger.warning(f"… and {rest} more damaged videos: see the problem column of the run's manifest.csv")


def _report_short(manifest: Manifest, sampling: Sampling) -> None:
    usable = manifest.select(manifest.usable)
    if num_short := int((usable.num_frames < needed_frames(usable, sampling)).sum()):
        done = "looped" if sampling.short == "loop" or sampling.segments else "padded"
        number = f"{num_short} of {counted(len(usable), 'video')}"
        advice = _what_fits(usable, sampling) if num_short > len(usable) / 5 and not sampling.segments else ""
        logger.warning(f"{number} shorter than a clip, and {done}{advice}")


def _what_fits(usable: Manifest, sampling: Sampling) -> str:
    """Which stride is short enough for nearly all videos, or what else to do."""
    for stride in range(sampling.stride - 1, 0, -1):
        shorter = (usable.num_frames < needed_frames(usable, replace(sampling, stride=stride))).mean()
        if shorter < 0.05:
            return f": data.stride {stride} leaves {shorter:.0%} of them too short"
    return ": data.sampling segments takes its frames from the whole of a video, however short"


def _held_out(splits: Collection[str]) -> tuple[str, str]:
    """The splits to score while training and at the end: val and test, or one of them for both."""
    test = "test" if "test" in splits else "val"
    return "val" if "val" in splits else test, test


def _open_images(config: Config, recipe: Recipe, progress: Progress) -> Source:
    data, root = config.data, place_of(config.data.root)
    for key in ("groups", "annotations", "manifest", "split", "background", "reach"):
        if getattr(data, key) != getattr(DataConfig(), key):
            raise InputError(f"data.{key} has no effect on images, and {recipe.name} has images: remove it")
    if not isinstance(root, Path):
        raise InputError(f"{root}: data sets of images are read from disks")
    render_missing(recipe.name, root)
    if recipe.torchvision and _may_download(root):
        (loaded, found), problems = load_torchvision(root, recipe, data.short_side), []
        classes = recipe.classes or found
    else:
        show = over_files(progress, f"reading every image of {root}")
        how = (data.short_side, data.test_fraction, show, data.allow_outside)
        loaded, classes, problems = load_folder(root, recipe, *how)
    labels = {classes[label] for items in loaded.values() for label in items.labels.unique()}
    _check_classes(sorted(labels), classes, problems, data.root)
    validation, test = _held_out(loaded)
    if "train" not in loaded or test not in loaded:
        raise InputError(f"{root}: found only the split {', '.join(loaded)}, training needs train and test (or val)")
    return Source(recipe, classes, loaded["train"], loaded[validation], loaded[test], problems)


def _may_download(root: Path) -> bool:
    """Whether torchvision may use the folder: it is absent or empty, or holds torchvision's files already."""
    names = [item.name for item in root.iterdir()] if root.is_dir() else []
    return not names or any(name.startswith("cifar-") for name in names)


def _check_classes(found: list[str], classes: list[str], problems: list[tuple[str, str]], root: str) -> None:
    if len(found) < 2:
        names = ", ".join(found) or "none"
        lost = f" (of {len(problems)} unusable files the first is {': '.join(problems[0])})" if problems else ""
        raise InputError(f"{root}: at least 2 classes are needed, found {names}{lost}")
    if absent := [name for name in classes if name not in found]:
        names = ", ".join(absent[:5]) + (", …" if len(absent) > 5 else "")
        logger.warning(f"{root}: nothing of {len(absent)} of {len(classes)} classes: {names}")
