"""How the network's input is scaled: as its pretrained weights want it, unless the configuration says otherwise."""

import logging

from cbam3d.config import Config, DataConfig
from cbam3d.config.bundled import find_recipe
from cbam3d.data.recipe import load_recipe
from cbam3d.errors import InputError
from cbam3d.models.pretrained import Scaling, find_weights, scaling_of
from cbam3d.runs.checkpoint import read_checkpoint
from cbam3d.runs.network import GIVEN

logger = logging.getLogger(__name__)


def with_scaling(config: Config, begun: DataConfig | None = None) -> Config:
    """The configuration with a mean and a standard deviation, where it has none.

    Args:
        config: `model`, and `data.mean` and `data.std`, where they are set.
        begun: the data of the run that is resumed, which has both.

    Raises:
        InputError: no such weights.
    """
    if config.data.mean is not None:
        return config
    found = None
    if begun is not None:
        found = Scaling(*begun.scaling)
    elif config.model.weights is not None and config.model.name != GIVEN:
        found = _of_weights(config)
        if found is not None:
            mean, std = (", ".join(f"{value:.3g}" for value in values) for values in found)
            logger.info(f"input scaled as {config.model.weights} wants it: mean {mean}, std {std}")
    mean, std = config.data.scaling if found is None else found
    return config.override({"data": {"mean": list(mean), "std": list(std)}})


def _of_weights(config: Config) -> Scaling | None:
    model = config.model
    images = load_recipe(find_recipe(config.data.recipe)).kind == "image"
    try:
        source = find_weights(model.name, 2 if images or model.as_video else 3, model.weights)
    except ValueError as error:
        raise InputError(f"model: {error}") from None
    if str(source).endswith(".ckpt"):  # of a run of this package, or somebody else's
        try:
            return Scaling(*read_checkpoint(source).config.data.scaling)
        except InputError:
            return None
    return scaling_of(model.name, source)
