"""The configuration of a run: its keys, reading it, and what comes with the package."""

from cbam3d.config.reading import ConfigSource, load_config
from cbam3d.config.schema import AugmentConfig, Config, DataConfig, EvalConfig, ModelConfig, RunConfig, TrainConfig

__all__ = [
    "AugmentConfig",
    "Config",
    "ConfigSource",
    "DataConfig",
    "EvalConfig",
    "ModelConfig",
    "RunConfig",
    "TrainConfig",
    "load_config",
]
