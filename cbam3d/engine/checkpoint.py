"""Checkpoints: tensors and plain data, written whole or not at all."""

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules and optimisers by their state) to `path`; a crash leaves the previous file."""
    unfinished = path.with_name(path.name + ".part")
    fabric.save(unfinished, state)
    if fabric.is_global_zero:
        unfinished.replace(path)
    fabric.barrier()
