"""Checkpoints: tensors and plain data, written whole or not at all."""

from pathlib import Path
from typing import Any

from lightning_fabric import Fabric

from cbam3d.errors import InputError


def save_checkpoint(fabric: Fabric, path: Path, state: dict[str, Any]) -> None:
    """Write `state` (modules and optimisers by their state) to `path`; what goes wrong leaves the previous file.

    Raises:
        InputError: the disk is full or cannot be written.
    """
    unfinished = path.with_name(path.name + ".part")
    try:
        fabric.save(unfinished, state)
        if fabric.is_global_zero:
            unfinished.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save says a full disk by a RuntimeError
        unfinished.unlink(missing_ok=True)
        if "DataLoader worker" in str(error):  # the death of a loader's worker is told wherever this process is
            raise
        kept = "; the last one is as it was" if path.exists() else ""
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{path}: the checkpoint cannot be written ({reason}){kept}") from None
    fabric.barrier()


def changed_keys(then: dict[str, Any], now: dict[str, Any], prefix: str = "") -> dict[str, tuple[Any, Any]]:
    """Dotted key -> its value then and now, of two configurations as plain data."""
    changed = {}
    for key in sorted({*then, *now}):
        a, b = then.get(key), now.get(key)
        if isinstance(a, dict) and isinstance(b, dict) and not key.endswith("options"):
            changed |= changed_keys(a, b, f"{prefix}{key}.")
        elif a != b:
            changed[prefix + key] = (a, b)
    return changed
