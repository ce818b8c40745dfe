"""Action recognition in video with 3D attention."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

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
from cbam3d.models import ResNet, create_model, list_models, load_weights, register_model

if TYPE_CHECKING:
    from cbam3d.config import Config, load_config
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


def __getattr__(name: str) -> Any:
    """Runs and configurations need decoders and more, which blocks and networks do not: imported when asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    room = "cbam3d.config" if name in ("Config", "load_config") else "cbam3d.runs"
    value = getattr(import_module(room), name)
    globals()[name] = value
    return value
