"""Values of a configuration for a run that takes a second or two on the demo's videos."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cbam3d import Run, train

TINY = {
    "config": "folder",
    "run.accelerator": "cpu",
    "run.precision": "32-true",
    "data.num_frames": 4,
    "data.short_side": 32,
    "data.size": 32,
    "data.num_workers": 0,
    "data.test_fraction": 0.5,
    "model.name": "resnet10",
    "model.options": {"width": 8},
    "train.epochs": 1,
    "train.batch_size": 8,
    "eval.num_clips": 2,
    "eval.every_epochs": 1,
}


def as_arguments(values: Mapping[str, Any]) -> list[str]:
    """The same as options of the command line."""
    return [word for key, value in values.items() for word in (f"--{key}", _text(value))]


def _text(value: Any) -> str:
    return str(value) if isinstance(value, (str, Path)) else json.dumps(value)


def train_tiny(root: Path, run_dir: Path | str | None, values: Mapping[str, Any] | None = None, **options: Any) -> Run:
    """Train on the videos of a folder."""
    return train({**TINY, "data.root": str(root), **(values or {})}, run_dir=run_dir, **options)
