"""Action recognition in video with 3D attention."""

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cbam3d.attention import (
        CBAM,
        CSRA,
        CBAM2d,
        CBAM3d,
        ChannelAttention,
        SpatialAttention,
        TemporalAttention,
        attention_maps,
        create_attention,
        create_head,
        describe_attention,
        guard_conv3d,
        insert_attention,
        list_attentions,
        list_heads,
        list_insertions,
        register_attention,
        register_head,
        remove_attention,
    )
    from cbam3d.config import Config, load_config
    from cbam3d.models import ResNet, create_model, list_models, load_weights, register_model
    from cbam3d.runs import (
        Predictor,
        Run,
        compare,
        compare_runs,
        features,
        load_run,
        measure_cost,
        open_dataset,
        open_run,
        prepare,
        train,
    )

__version__ = "0.1.0"

__all__ = [
    "CBAM",
    "CSRA",
    "CBAM2d",
    "CBAM3d",
    "ChannelAttention",
    "Config",
    "Predictor",
    "ResNet",
    "Run",
    "SpatialAttention",
    "TemporalAttention",
    "attention_maps",
    "compare",
    "compare_runs",
    "create_attention",
    "create_head",
    "create_model",
    "describe_attention",
    "features",
    "guard_conv3d",
    "insert_attention",
    "list_attentions",
    "list_heads",
    "list_insertions",
    "list_models",
    "load_config",
    "load_run",
    "load_weights",
    "measure_cost",
    "open_dataset",
    "open_run",
    "prepare",
    "register_attention",
    "register_head",
    "register_model",
    "remove_attention",
    "train",
]


_ROOMS = ("attention", "models", "config", "runs")  # those with public names, from light to heavy


def __getattr__(name: str) -> Any:
    """What is asked for is imported then: blocks need torch, runs also decoders, and `cbam3d --help` neither."""
    if name not in __all__:
        if not name.startswith("_") and find_spec(f"{__name__}.{name}") is not None:
            return import_module(f"{__name__}.{name}")
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    rooms = (import_module(f"{__name__}.{room}") for room in _ROOMS)
    value = next(getattr(room, name) for room in rooms if name in room.__all__)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
