"""A configuration -> data, network and training: where the rooms meet."""

from collections.abc import Collection, Iterable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning_fabric import Fabric
from rich.console import Console
from rich.progress import Progress
from torch import nn
from torch.utils.data import Dataset

from cbam3d.config import Config
from cbam3d.data import motion
from cbam3d.data.augment import BatchTransform, eval_transform, train_transform
from cbam3d.data.batch import Sample
from cbam3d.data.images import load_folder, load_torchvision
from cbam3d.data.loader import EvalBatches, Loader, TrainBatches
from cbam3d.data.manifest import Manifest, read_manifest, write_manifest
from cbam3d.data.recipe import Recipe, load_recipe
from cbam3d.data.sampling import random_clip, uniform_clips
from cbam3d.data.scan import scan_videos
from cbam3d.data.split import assign_splits, class_names, rows_of
from cbam3d.data.videos import VideoDataset
from cbam3d.errors import InputError
from cbam3d.models import create_model
from cbam3d.resources import find_recipe


@dataclass(frozen=True)
class Source:
    """A data set, ready to be loaded: its splits, its classes, and the files that cannot be used."""

    recipe: Recipe
    classes: list[str]
    train: Dataset[Sample]
    validation: Dataset[Sample]  # scored while training, chooses the best epoch; the same as test where there is no val
    test: Dataset[Sample]  # scored at the end
    problems: list[tuple[str, str]]
    manifest: Manifest | None = None

    @property
    def images(self) -> bool:
        return self.recipe.kind == "image"


def open_source(config: Config, console: Console) -> Source:
    """Find the files that the configuration names.

    Raises:
        InputError: a missing or empty folder, fewer than two classes, a split without items, leaking groups.
    """
    recipe = load_recipe(find_recipe(config.data.recipe))
    if config.augment.flip and recipe.flip_keeps_label is False:
        raise InputError(f"augment.flip: in {recipe.name} a mirror image has another label")
    source = _open_images(config, recipe, console) if recipe.kind == "image" else _open_videos(config, recipe, console)
    for split, data in (("training", source.train), ("held-out", source.test)):
        if not len(data):  # type: ignore[arg-type]
            first = f" ({': '.join(source.problems[0])})" if source.problems else ""
            raise InputError(f"{config.data.root}: no usable {split} {recipe.kind}{first}")
    return source


def _open_videos(config: Config, recipe: Recipe, console: Console) -> Source:
    data = config.data
    manifest = assign_splits(load_manifest(config, recipe, console), recipe, data.split, data.test_fraction)
    classes = class_names(manifest, recipe)
    usable, bad = manifest.num_frames > 0, manifest.problem != b""
    lost = manifest.select(~usable)
    problems = list(zip(lost.text("path"), lost.text("problem"), strict=True))
    _check_classes(manifest.select(usable).labels(), classes, problems, data.root, console)
    damaged = manifest.select(bad & usable)
    for path, problem in list(zip(damaged.text("path"), damaged.text("problem"), strict=True))[:10]:
        console.print(f"damaged {path}: {problem}; its readable frames are used")
    if len(damaged) > 10:
        console.print(
            f"… and {len(damaged) - 10} more damaged videos: see the problem column of the run's manifest.csv"
        )

    train_clips = partial(_random_clip, num_frames=data.num_frames, stride=data.stride)
    test_clips = partial(
        _uniform_clips,
        num_frames=data.num_frames,
        stride=data.stride,
        num_clips=config.eval.num_clips,
        order=config.eval.frame_order,
    )

    def dataset(split: str, clips) -> VideoDataset:
        rows = rows_of(manifest, split)
        return VideoDataset(Path(data.root), rows, classes, clips, data.short_side, config.run.seed)

    validation, test = _held_out(manifest.text("split"))
    tested = dataset(test, test_clips)
    validated = tested if validation == test else dataset(validation, test_clips)
    return Source(recipe, classes, dataset("train", train_clips), validated, tested, problems, manifest)


def _random_clip(video_frames: int, rng: np.random.Generator, num_frames: int, stride: int) -> list[list[int]]:
    return [random_clip(video_frames, num_frames, stride, rng)]


def _uniform_clips(
    video_frames: int, rng: np.random.Generator, num_frames: int, stride: int, num_clips: int, order: str
) -> list[list[int]]:
    clips = uniform_clips(video_frames, num_frames, stride, num_clips)
    if order == "shuffled":
        return [[int(frame) for frame in rng.permutation(clip)] for clip in clips]
    if order == "repeated":
        return [[clip[len(clip) // 2]] * len(clip) for clip in clips]
    return clips


def _held_out(splits: Collection[str]) -> tuple[str, str]:
    """The splits to score while training and at the end: val and test, or one of them for both."""
    test = "test" if "test" in splits else "val"
    return "val" if "val" in splits else test, test


def load_manifest(config: Config, recipe: Recipe, console: Console) -> Manifest:
    """The table of the videos: the file that is named, the one in the folder, or a scan.

    Raises:
        InputError: an unreadable table, groups beside a table that has its own, or what `scan_videos` raises.
    """
    data, root = config.data, Path(config.data.root)
    path = Path(data.manifest) if data.manifest else root / "manifest.csv"
    if data.manifest or path.is_file():
        if data.groups:
            raise InputError(f"data.groups has no effect beside {path}, which has groups: remove one of the two")
        console.print(f"videos as listed in {path}")
        return read_manifest(path)
    if recipe.name == "motion":
        if root.is_dir() and (foreign := sorted({item.name for item in root.iterdir()} - motion.CLASSES.keys())):
            raise InputError(f"{root} holds {foreign[0]}: the demo's videos are not rendered there; name a data.recipe")
        console.print(f"rendering {len(motion.CLASSES) * motion.NUM_GROUPS} videos of eight motions into {root} …")
        motion.render(root)
    groups = Path(data.groups) if data.groups else None
    manifest = scan_videos(root, recipe, groups, progress=progress_over(console, f"reading every video of {root}"))
    if recipe.name == "motion":
        write_manifest(manifest, path)
    return manifest


def _open_images(config: Config, recipe: Recipe, console: Console) -> Source:
    data, root = config.data, Path(config.data.root)
    if recipe.torchvision and _may_download(root):
        loaded, classes, problems = load_torchvision(root, recipe), recipe.classes or [], []
    else:
        progress = progress_over(console, f"reading every image of {root}")
        loaded, classes, problems = load_folder(root, recipe, data.short_side, data.test_fraction, progress)
    found = {classes[label] for items in loaded.values() for label in items.labels}
    _check_classes(sorted(found), classes, problems, data.root, console)
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


def create_loaders(config: Config, source: Source, fabric: Fabric) -> tuple[Loader, Loader, Loader]:
    """The loaders of the data to train on, to validate and to test; the last two may be one."""
    if config.train.batch_size % fabric.world_size:
        raise InputError(
            f"train.batch_size must be a multiple of the {fabric.world_size} processes, got {config.train.batch_size}"
        )
    data, augment, seed = config.data, config.augment, config.run.seed
    flip = source.recipe.flip_keeps_label is True if augment.flip is None else augment.flip
    rank, world_size = fabric.global_rank, fabric.world_size

    def loader(items, batches, transform) -> Loader:
        on_device = BatchTransform(transform, data.mean, data.std, seed)
        return Loader(items, batches, on_device, data.num_workers, fabric.device)

    views = 1 if source.images else config.eval.num_clips

    def held_out(items) -> Loader:
        batches = EvalBatches(items, max(1, config.eval.batch_size // views), rank, world_size)
        return loader(items, batches, eval_transform(data.size))

    train = loader(
        source.train,
        TrainBatches(source.train, config.train.batch_size, seed, rank, world_size),  # type: ignore[arg-type]
        train_transform(data.size, augment.crop_scale, augment.crop_padding, flip, augment.color_jitter),
    )
    test = held_out(source.test)
    return train, test if source.validation is source.test else held_out(source.validation), test


def build_model(config: Config, num_classes: int, images: bool) -> nn.Module:
    """The network that the configuration names, for images or clips."""
    model = config.model
    torch.manual_seed(config.run.seed)
    try:
        return create_model(
            model.name,
            num_classes,
            ndim=2 if images else 3,
            attention=model.attention,
            attention_options=model.attention_options,
            weights=model.weights,
            **model.options,
        )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:  # torch.nn refuses in several ways
        raise InputError(f"model: {' '.join(str(error).split())}") from None


def create_fabric(config: Config) -> Fabric:
    """Device, precision and processes; started."""
    run = config.run
    try:
        fabric = Fabric(accelerator=run.accelerator, devices=run.devices, precision=run.precision)
    except Exception as error:  # Fabric names a missing device by exceptions of several kinds
        raise InputError(f"run.accelerator {run.accelerator}, run.devices {run.devices}: {error}") from None
    fabric.launch()
    return fabric


def progress_over(console: Console, text: str):
    """A function that shows the progress of an iteration of known length."""

    def wrap(items: Iterable[Any], total: int) -> Iterable[Any]:
        console.print(f"{text} ({total} files) …")
        with Progress(console=console, transient=True, disable=not console.is_terminal) as progress:
            yield from progress.track(items, total=total, description=text)

    return wrap


def plain(config: Config) -> dict[str, Any]:
    """The configuration as plain data, for YAML and checkpoints."""

    def simple(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: simple(item) for key, item in value.items()}
        return [simple(item) for item in value] if isinstance(value, (list, tuple)) else value

    return simple(asdict(config))
