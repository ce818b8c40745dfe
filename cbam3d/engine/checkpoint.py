"""Checkpoints: tensors and plain data, written whole or not at all."""

from contextlib import nullcontext
from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from cbam3d.errors import InputError
from cbam3d.files import atomic_write


def checkpoint_path(folder: Path, name: str = "last") -> Path:
    """Where a run in a folder keeps a checkpoint: last or best. Training has begun where there is a last one."""
    return folder / "checkpoints" / f"{name}.ckpt"


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules and optimisers by their state) to `path`; a failure leaves the previous file.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    try:
        with atomic_write(path) if fabric.is_global_zero else nullcontext(path) as target:
            fabric.save(target, state)  # every process takes part, the first one writes
    except (OSError, RuntimeError) as error:  # torch.save reports a full disk as a RuntimeError
        if "DataLoader worker" in str(error):  # a worker's death is raised wherever this process happens to be
            raise
        kept = "; the last one is as it was" if path.exists() else ""
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: the checkpoint cannot be written ({reason}){kept}") from None
    fabric.barrier()


def changed_keys(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> its old and new value, of two configurations as plain data."""
    changed = {}
    for key in sorted({*then, *now}):
        a, b = then.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict) and not key.endswith("options"):
            changed |= changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            changed[prefix + key] = (a, b)
    return changed
