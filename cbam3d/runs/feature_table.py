"""Features of videos or images by a network, as a table: a row for each file and view."""

import json
import logging
from collections.abc import Callable, Mapping
from copy import copy, deepcopy
from pathlib import Path
from shutil import rmtree
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet
from safetensors.torch import save_file
from torch import Tensor, nn

from cbam3d.attention.insertion.clips import clip_frames_of
from cbam3d.attention.insertion.features import describe
from cbam3d.config import Config, ConfigSource, load_config
from cbam3d.data.batch import SampleIndex
from cbam3d.data.loader import EvalBatches, Loader, Samples
from cbam3d.data.videos import VideoDataset
from cbam3d.engine.checkpoint import changed_keys
from cbam3d.engine.progress import Progress, no_progress
from cbam3d.errors import InputError, unknown
from cbam3d.files import atomic_write, printable, writing
from cbam3d.models.headed import HeadedNetwork, cut
from cbam3d.runs.checkpoint import open_checkpoint
from cbam3d.runs.data import Source, open_source
from cbam3d.runs.dataset import create_loaders
from cbam3d.runs.feature_cache import FeatureCache, computed, facts_of
from cbam3d.runs.network import build_model
from cbam3d.runs.own_input import with_own_input
from cbam3d.runs.processes import by_first_process, create_fabric
from cbam3d.runs.progress import show_progress
from cbam3d.runs.run import Run, Which
from cbam3d.runs.table import with_manifest_of

logger = logging.getLogger(__name__)

Per = Literal["clip", "frame"]
_OF_SPLITS = ("recipe", "root", "groups", "annotations", "manifest", "split", "test_fraction", "background", "reach")


def features(
    model: "Run | nn.Module | str | Path | None",
    data: ConfigSource | None = None,
    *,
    output: str | Path,
    layer: str | None = None,
    per: Per = "clip",
    views: int = 0,
    checkpoint: Which = "last",
    trust_code: bool = False,
    progress: Progress = show_progress,
) -> Path:
    """Compute the features of every video (image) of a data set, and write them as a table.

    A row is a file and a view, with the columns path, label, group, split, view, start_seconds, end_seconds and
    features. An interrupted computation goes on where it was when it is started again.

    Args:
        model: a run, or its folder or checkpoint; a network, (N, 3, T, H, W) or (N, 3, H, W) to anything; or None for
            the network of the configuration.
        data: the configuration of the data, as of `train`: `data`, `eval` and `run` matter, with `run.devices` for the
            number of processes. None for that of the run; of a mapping without "config", values change the run's.
        output: the file, .parquet or .safetensors. Of safetensors, the metadata `rows` holds the other columns as JSON.
        layer: name of the module whose output is meant; None for the last features before the network's head.
        per: "clip", features (C,), the mean over all positions; or "frame", features (T, C), for every frame that the
            layer has.
        views: random views of every file, with the transforms of training; 0 for those of evaluation.
        checkpoint: of the run: "last" or "best".
        trust_code: import the class of the network where the run names it by package.module:Class.
        progress: shows how far it is.

    Features are kept and written with the precision of float16 (of float32 where they exceed its range).

    Returns: the file.

    Raises:
        InputError: no such run, configuration, data or layer, features without an axis of frames where these are
            wanted, or a file that cannot be written.

    Examples:
        >>> import cbam3d
        >>> path = cbam3d.features("runs/mine", output="features.safetensors")
        >>> path.name
        'features.safetensors'
    """
    target = Path(output)
    if target.suffix not in (".parquet", ".safetensors"):
        raise InputError(f"{target}: features are written as .parquet or .safetensors")
    if per not in ("clip", "frame"):
        raise InputError(f"per must be clip or frame, got {per!r}")
    if views < 0:
        raise InputError(f"views must be at least 0, got {views}")
    config, network = _opened(model, data, checkpoint, trust_code)
    fabric, config = create_fabric(config)
    source = by_first_process(fabric, lambda: open_source(config, progress=progress))
    if network is None:
        network = build_model(config, len(source.classes), source.images)
    extract = _extractor(network.to(fabric.device).eval(), layer, per)
    train, _, test = create_loaders(config, source, fabric.device, fabric.global_rank, fabric.world_size)
    facts = {**facts_of(config, network), "layer": layer, "per": per, "views": views}
    facts |= {"eval": config.eval.model_dump(mode="json"), "augment": config.augment.model_dump(mode="json")}
    cache = FeatureCache(target.with_name(f"{target.name}.parts"), facts)
    rows: list[dict[str, Any]] = []
    found: list[Tensor] = []
    for split, items in _splits(source).items():
        used = train if views else test
        data_of_split = _sampled_as(source.train if views else source.test, items)
        batches = EvalBatches(data_of_split, used.batches.batch_size, fabric.global_rank, fabric.world_size)
        loader = Loader(data_of_split, batches, used.transform, used.loader.num_workers, fabric.device)
        shown = progress if fabric.is_global_zero else no_progress
        how = (cache, extract, fabric, shown, f"features of {split}")
        all_kept = computed(config, source.images, loader, max(1, views), *how)
        if fabric.is_global_zero:
            for item, kept in enumerate(all_kept):
                if kept is None:
                    logger.warning(f"no features of {data_of_split.name(item)}: it could not be read")
                    continue
                found += list(kept.float())
                rows += _rows(source, data_of_split, split, item, len(kept), views)
    if fabric.is_global_zero:
        if not rows:
            raise InputError(f"{config.data.root}: no file could be read")
        _write(target, rows, torch.stack(found))
        rmtree(cache.folder.parent)
    fabric.barrier()
    return target


def _opened(
    model: "Run | nn.Module | str | Path | None", data: ConfigSource | None, checkpoint: Which, trust_code: bool
) -> tuple[Config, nn.Module | None]:
    """Configuration and network, None for that of the configuration."""
    if model is None or isinstance(model, nn.Module):
        if data is None:
            raise InputError("features: a network needs data: a configuration, or a mapping of its values")
        return with_own_input(load_config(data)), model
    if isinstance(model, Run):
        saved, given, trusted = model.checkpoint(checkpoint), model.network, model.trust_code
    else:
        saved, given, trusted = open_checkpoint(model, checkpoint), None, trust_code
    config = saved.config
    if data is None or (isinstance(data, Mapping) and "config" not in data):
        config = config.override(data or {})
        changed = changed_keys(saved.config.plain(), config.plain())
        if unused := [key for key in changed if key.startswith(("model.", "train."))]:
            logger.warning(f"{', '.join(unused)}: not used, the network is that of {saved.path}")
        if all(getattr(config.data, key) == getattr(saved.config.data, key) for key in _OF_SPLITS):
            config = with_manifest_of(saved.folder, config)  # the run's own splits
    else:
        config = with_own_input(load_config(data), saved.config.data)
    return config, saved.model(network=given, trust_code=trusted)


def _splits(source: Source) -> dict[str, Samples]:
    found = {"train": source.train, "test": source.test}
    return found if source.validation is source.test else {**found, "val": source.validation}


def _sampled_as(like: Samples, items: Samples) -> Samples:
    """Items, with clips taken as those of others are."""
    if not isinstance(items, VideoDataset) or not isinstance(like, VideoDataset):
        return items
    other = copy(items)
    other.clips, other.reach = like.clips, like.reach
    return other


def _extractor(model: nn.Module, layer: str | None, per: Per) -> Callable[[Tensor], Tensor]:
    """Inputs (N, C, *S) -> features (N, C), or (N, T, C)."""
    if layer is None:
        if isinstance(model, HeadedNetwork):
            network: Callable[[Tensor], Tensor] = model.backbone
        else:
            network = deepcopy(model)
            inner = network
            while hasattr(inner, "clip_frames"):  # an image network on frames ends at its images' features
                inner = inner.get_submodule("backbone")
            try:
                cut(inner)
            except ValueError as error:
                raise InputError(f"features: {error}; name a layer") from None
    else:
        network = _output_of(model, layer)

    def extract(x: Tensor) -> Tensor:
        found = network(x)
        if per == "clip":
            return found.flatten(2).mean(2) if found.ndim > 2 else found
        if x.ndim != 5 or found.ndim < 3 or (found.ndim == 3 and layer is None and not _has_frames(model)):
            raise InputError("features: this network or layer has no frames apart: take per clip")
        return (found.flatten(3).mean(3) if found.ndim > 3 else found).transpose(1, 2)

    return extract


def _has_frames(model: nn.Module) -> bool:
    return any(hasattr(module, "clip_frames") for module in model.modules())


def _output_of(model: nn.Module, layer: str) -> Callable[[Tensor], Tensor]:
    """A function that runs a network and returns the output of one of its modules, channels first."""
    names = [name for name, _ in model.named_modules() if name]
    if layer not in names:
        raise InputError(f"features: {unknown('layer', layer, names)}")
    module, frames = model.get_submodule(layer), clip_frames_of(model, layer)

    def network(x: Tensor) -> Tensor:
        kept: list[Any] = []
        handle = module.register_forward_hook(lambda module, args, output: kept.append(output))
        try:
            model(x)
        finally:
            handle.remove()
        if not kept or not isinstance(kept[-1], Tensor):
            raise InputError(f"features: {layer} is not called, or returns something other than a tensor")
        output = kept[-1]
        about = describe(module, output)
        is_last = about.layout == "channels_last" if about is not None else output.ndim == 3
        output = output.movedim(-1, 1) if is_last else output
        return output if frames is None else frames.to_clips(output)

    return network


def _rows(source: Source, items: Samples, split: str, item: int, count: int, views: int) -> list[dict[str, Any]]:
    """The columns beside the features, for each view of an item."""
    own = items.labels[item]
    names = [source.classes[int(k)] for k in (np.flatnonzero(own) if source.several else [own])]
    label = "|".join(names)
    row = {"path": items.name(item), "label": label, "group": "", "split": split}
    if not isinstance(items, VideoDataset):
        return [{**row, "view": i, "start_seconds": 0.0, "end_seconds": 0.0} for i in range(count)]
    row["group"] = items.manifest.group[item]
    named = items.by_name()
    clips = [clip for view in range(max(1, views)) for clip in named.frames_of(SampleIndex(view, item))]
    fps = float(items.manifest.fps[item])
    rate = 1 / fps if np.isfinite(fps) and fps > 0 else 0.0
    each = count // len(clips)  # crops of a clip, one after the other
    return [
        {**row, "view": i, "start_seconds": min(clip) * rate, "end_seconds": (max(clip) + 1) * rate}
        for i, clip in ((i, clips[i // each]) for i in range(count))
    ]


def _encodable(value: Any) -> Any:
    return printable(value) if isinstance(value, str) else value


def _write(path: Path, rows: list[dict[str, Any]], found: Tensor) -> None:
    with writing(path), atomic_write(path) as unfinished:
        if path.suffix == ".safetensors":
            save_file({"features": found.contiguous()}, unfinished, {"rows": json.dumps(rows)})
            return
        columns = {name: [_encodable(row[name]) for row in rows] for name in rows[0]}
        values = pa.array(found.flatten().numpy())
        for size in reversed(found.shape[1:]):  # (C,), or (T, C)
            values = pa.FixedSizeListArray.from_arrays(values, size)
        parquet.write_table(pa.table({**columns, "features": values}), unfinished)
