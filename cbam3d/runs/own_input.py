"""The network's input as its pretrained weights want it, where the configuration does not say otherwise."""

import logging
from pathlib import Path

from cbam3d.config import Config, DataConfig
from cbam3d.errors import InputError
from cbam3d.models.libraries.own_input import OwnInput
from cbam3d.models.pretrained import own_input, weights_file
from cbam3d.models.weights import is_of_images
from cbam3d.runs.checkpoint import Checkpoint, open_checkpoint
from cbam3d.runs.network import GIVEN, has_images

IMAGENET = OwnInput((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))

logger = logging.getLogger(__name__)


def with_own_input(config: Config, begun: DataConfig | None = None, whole: bool = False) -> Config:
    """The configuration with the mean and the standard deviation of its weights, where it has none; and with their
    number of frames and size, where these are the defaults.

    Args:
        config: `model` and `data`.
        begun: the data of the run that is resumed, which has all of them.
        whole: `config` is not that of the run with changes, so that its defaults stand for what the run began with.

    Raises:
        InputError: no such weights.
    """
    data, usual, found, changes = config.data, DataConfig(), OwnInput(), dict[str, object]()
    if begun is not None:
        found = OwnInput(*begun.scaling)
        own = ("num_frames", "size", "short_side") if whole else ()
        changes |= {key: getattr(begun, key) for key in own if getattr(data, key) == getattr(usual, key)}
    elif config.model.name != GIVEN and (config.model.weights is not None or config.model.name.startswith("hf/")):
        found = _own_input(config)
    mean, std = data.scaling if data.mean is not None or found.mean is None else (found.mean, found.std or ())
    changes |= {"mean": list(mean), "std": list(std)}
    if found.num_frames is not None and data.num_frames == usual.num_frames:
        changes["num_frames"] = found.num_frames
    if found.size is not None and data.size == usual.size:
        size = found.size if isinstance(found.size, int) else min(found.size)
        changes |= {"size": found.size, "short_side": max(size, data.short_side)}
    if found != OwnInput() and begun is None:
        given = ", ".join(f"data.{key} {value}" for key, value in changes.items())
        logger.info(f"input as {config.model.name} wants it: {given}")
    return config.override({"data": changes})


def knows_other_classes(config: Config, classes: list[str]) -> bool:
    """Whether the weights are of a run on other classes, of the same number."""
    weights = config.model.weights
    run = None if weights is None else run_of(weights_file(weights))
    return run is not None and len(run.classes) == len(classes) and run.classes != classes


def run_of(file: Path | None) -> Checkpoint | None:
    """The checkpoint of a run of this package; None of other files."""
    try:
        return None if file is None else open_checkpoint(file)
    except InputError:
        return None


def _own_input(config: Config) -> OwnInput:
    model = config.model
    file = None if model.weights is None else weights_file(model.weights)
    if (run := run_of(file)) is not None:
        return OwnInput(*run.config.data.scaling)
    ndim = 2 if model.as_video or has_images(config) else 3
    if file is not None and ndim == 3 and "/" not in model.name and is_of_images(file):  # they are inflated
        return IMAGENET
    try:
        return own_input(model.name, ndim, model.weights if file is None else None)
    except InputError:
        raise
    except ValueError as error:
        raise InputError(f"model: {error}") from None
