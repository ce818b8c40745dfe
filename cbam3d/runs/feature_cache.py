"""Features of a frozen network, computed once for every file and view, and kept on disk."""

import hashlib
import json
import logging
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from cbam3d import __version__
from cbam3d.config import Config
from cbam3d.data.augment import Mix
from cbam3d.data.features import FeatureLoader, FeatureSet, ViewBatches
from cbam3d.data.loader import EvalBatches, Loader
from cbam3d.data.rng import numbers_of
from cbam3d.engine.progress import Progress
from cbam3d.errors import InputError, counted
from cbam3d.files import atomic_write, make_folder, writing
from cbam3d.models.headed import HeadedNetwork
from cbam3d.runs.dataset import train_batches
from cbam3d.runs.network import memory_format

logger = logging.getLogger(__name__)

_PICTURES, _SAMPLES = 16, 4  # at a time, on a CPU
Problems = list[tuple[str, str]]


class FeatureCache:
    """A folder of features, for one way of computing them; a file for each item.

    Args:
        folder: of all caches.
        facts: everything that the features depend on beside the item, as plain data.
    """

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        text = json.dumps(facts, indent=2, sort_keys=True)
        self.folder = make_folder(folder / hashlib.sha256(text.encode()).hexdigest()[:16])
        path = self.folder / "facts.json"
        if not path.is_file():  # the cache may be there to be read only
            with writing(path), atomic_write(path) as unfinished:
                unfinished.write_text(text + "\n")

    def path(self, stamp: str) -> Path:
        """Where the features of an item are; a changed file has another stamp."""
        name = hashlib.sha256(stamp.encode(errors="surrogateescape")).hexdigest()[:32]
        return self.folder / name[:2] / f"{name}.safetensors"

    def read(self, stamp: str) -> Tensor | None:
        """The features of an item, (V, C, *S); None where there are none."""
        try:
            return load_file(self.path(stamp))["features"]
        except (OSError, SafetensorError, KeyError):
            return None

    def write(self, stamp: str, features: Tensor) -> None:
        """Keep the features of an item."""
        path = self.path(stamp)
        kept = features.half() if features.abs().max() < 60_000 else features
        with writing(path):
            path.parent.mkdir(exist_ok=True)
            with atomic_write(path) as unfinished:
                save_file({"features": kept.contiguous()}, unfinished)


def headed(config: Config, model: nn.Module) -> HeadedNetwork:
    """The network, if the features before its head can be kept.

    Raises:
        InputError: no head of its own, layers before it that are trained, or CutMix.
    """
    if not isinstance(model, HeadedNetwork):
        raise InputError("train.cached_views needs a model.head, and what comes before it frozen")
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not name.startswith("head."):
            raise InputError(f"train.cached_views: {name} is trained, so its features change: freeze it (train.freeze)")
    if config.augment.cutmix:
        raise InputError("augment.cutmix cuts pictures, and train.cached_views has features: set it to 0")
    return model


def cached_loaders(
    config: Config,
    model: nn.Module,
    images: bool,
    loaders: tuple[Loader, Loader, Loader],
    fabric: Fabric,
    folder: Path,
    progress: Progress,
    classes: list[str],
) -> tuple[FeatureLoader, FeatureLoader, FeatureLoader, Problems]:
    """Loaders of features in place of those of files, and the files that could not be read.

    Args:
        config: of the run.
        model: whose backbone is frozen; on the device.
        images: whether inputs are images, rather than clips.
        loaders: of training, validation and test.
        fabric: decides precision and processes.
        folder: where features are kept.
        progress: shows how far the computation is.
        classes: names.

    Raises:
        InputError: see `headed`.
    """
    model = headed(config, model)
    train, validation, test = loaders
    views = config.train.cached_views
    facts = {**facts_of(config, model.backbone), "grid": model.grid}
    steps = [type(step).__name__ for step in (*train.transform.crops, *train.transform.transforms)]  # flips, or none
    augment = {"augment": config.augment.model_dump(mode="json"), "steps": steps}
    for_training = FeatureCache(folder, {**facts, "views": views, **augment})
    scored = {"eval": config.eval.model_dump(mode="json", include={"num_clips", "num_crops", "frame_order"})}
    scored["eval"]["flip"] = config.scores_mirrored
    for_scoring = FeatureCache(folder, {**facts, **scored})

    def features_of(loader: Loader, num_views: int, cache: FeatureCache, text: str) -> tuple[FeatureSet, Problems]:
        found = computed(config, images, loader, num_views, cache, model.features, fabric, progress, text)
        return _usable(loader, found, config.data.root)

    trained, problems = features_of(train, views, for_training, f"features of {views} views a training item")
    tested, others = features_of(test, 1, for_scoring, "features of the test data")
    problems += others
    order = train_batches(config, trained, classes, 1, fabric.global_rank, fabric.world_size)

    def held_out(found: FeatureSet) -> FeatureLoader:
        per_batch = max(1, config.eval.batch_size // found.features.shape[1])
        return FeatureLoader(found, EvalBatches(found, per_batch, fabric.global_rank, fabric.world_size), fabric.device)

    validated = test_loader = held_out(tested)
    if validation is not test:
        found, others = features_of(validation, 1, for_scoring, "features of the validation data")
        validated, problems = held_out(found), problems + others
    mix: Mix | None = train.mix
    return FeatureLoader(trained, order, fabric.device, mix), validated, test_loader, problems


def facts_of(config: Config, model: nn.Module) -> dict[str, Any]:
    """What the features of a network depend on, beside the file and its views."""
    of_model = {"name", "options", "attention", "attention_options", "as_video"}
    of_data = {"num_frames", "stride", "fps", "sampling", "short_videos", "clips_per_visit", "reach"}
    of_data |= {"short_side", "size", "mean", "std", "decoder", "corrupt_frames"}
    return {
        "weights": hash_of(model),
        "layers": re.sub(r"0x[0-9a-f]+", "", str(model)),
        "version": __version__,
        "model": config.model.model_dump(mode="json", include=of_model),
        "data": config.data.model_dump(mode="json", include=of_data),
        "precision": config.run.precision,
    }


def hash_of(model: nn.Module) -> str:
    """Of all weights of a network, sha256."""
    found = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        found.update(f"{name} {tuple(value.shape)} {value.dtype}".encode())
        found.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def computed(
    config: Config,
    images: bool,
    loader: Loader,
    num_views: int,
    cache: FeatureCache,
    features: Callable[[Tensor], Tensor],
    fabric: Fabric,
    progress: Progress,
    text: str,
) -> list[Tensor | None]:
    """The features of all items: those of a cache, and what it lacks computed, each process its share.

    Args:
        config: of the run.
        images: whether inputs are images, rather than clips.
        loader: of the items.
        num_views: of each item, those of as many epochs.
        cache: where features are, and are kept.
        features: inputs (N, C, *S) -> features (N, C', *S').
        fabric: decides precision and processes.
        progress: shows how far it is.
        text: what is computed.

    Returns: for each item (V, C', *S'), or None where its file cannot be read.

    Raises:
        InputError: features that are not finite.
    """
    data = loader.data
    stamps = [data.stamp(i) for i in range(len(data))]
    kept = [cache.read(stamp) for stamp in stamps]
    fabric.barrier()  # all processes have seen the same, before one of them adds to it
    missing = [i for i, one in enumerate(kept) if one is None]
    share = missing[fabric.global_rank :: fabric.world_size]
    if missing:
        logger.info(f"{text}: {counted(len(missing), 'item')} of {len(data)} to compute, in {cache.folder}")
    if share:
        known = {data.name(i): stamps[i] for i in share}
        on_cpu = fabric.device.type == "cpu"  # whose caches hold few pictures
        samples = loader.batches.batch_size if num_views == 1 else config.eval.batch_size
        batches: Any = ViewBatches(share, num_views, min(samples, _SAMPLES) if on_cpu else samples)
        per_pass = max(1, _PICTURES // (1 if images else config.data.num_frames)) if on_cpu else config.eval.batch_size
        layout = memory_format(config, images)
        transform = loader.transform.by_number(numbers_of(data.name(i) for i in range(len(data))))
        source = Loader(data.by_name(), batches, transform, loader.loader.num_workers, loader.device)
        for batch in progress(source, len(batches), lambda: text):
            if not len(batch.labels):
                continue
            with torch.no_grad(), fabric.autocast():
                inputs = batch.inputs.contiguous(memory_format=layout)
                found = torch.cat([features(part).float().cpu() for part in inputs.split(per_pass)])
            if not found.isfinite().all():
                raise InputError(f"{batch.names[0]}: the network's features are not finite")
            per_sample = found.unflatten(0, (len(batch.labels), -1))
            for name in dict.fromkeys(batch.names):
                rows = [i for i, other in enumerate(batch.names) if other == name]
                rows = [rows[i % len(rows)] for i in range(num_views)]  # views that cannot be read repeat others
                cache.write(known[name], per_sample[rows].flatten(0, 1))
    fabric.barrier()
    for i in missing:
        kept[i] = cache.read(stamps[i])
    return kept


def _usable(loader: Loader, found: list[Tensor | None], root: str) -> tuple[FeatureSet, Problems]:
    """The items that have features, and those that have none."""
    data = loader.data
    problems = [(data.name(i), "no features: its file could not be read") for i, one in enumerate(found) if one is None]
    rows = {i: one for i, one in enumerate(found) if one is not None}
    if not rows:
        raise InputError(f"{root}: no item has features" + (f", the first: {problems[0][0]}" if problems else ""))
    labels = torch.as_tensor(data.labels)[list(rows)].cpu()
    return FeatureSet(torch.stack(list(rows.values())), labels, [data.name(i) for i in rows]), problems
