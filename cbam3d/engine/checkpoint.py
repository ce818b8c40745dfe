"""Checkpoints: tensors and plain data, written whole or not at all, read without executing anything."""

from pathlib import Path
from typing import Any

import torch
from lightning_fabric import Fabric

from cbam3d.errors import InputError


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules and optimisers by their state) to `path`; a crash leaves the previous file."""
    unfinished = path.with_name(path.name + ".part")
    fabric.save(unfinished, state)
    if fabric.is_global_zero:
        unfinished.replace(path)
    fabric.barrier()


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        InputError: a missing, truncated or foreign file, or one that holds more than tensors and plain data.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such checkpoint") from None
    except Exception as error:  # a foreign file breaks the unpickler in any way it likes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable checkpoint ({reason})") from None
