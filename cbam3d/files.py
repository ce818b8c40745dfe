"""Reading what somebody else wrote, without executing anything."""

import pickle
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors.torch import load_file

from cbam3d.errors import InputError


def load_mapping(path: Path, kind: str) -> dict[str, Any]:
    """Read a YAML file of keys with values.

    Args:
        path: the file.
        kind: what the file should be, for the error.

    Raises:
        InputError: a missing or malformed file.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path}: not a readable {kind} ({' '.join(str(error).split())})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a {kind} holds keys with values, not a {type(content).__name__}")
    return content


def load_tensors(path: Path, kind: str) -> Any:
    """Read a .safetensors file, or a file of `torch.save` that holds tensors and plain data, onto the CPU.

    Args:
        path: the file.
        kind: what the file should be, for the error: "checkpoint", "weights file".

    Raises:
        InputError: a missing, truncated or foreign file, or one that holds more than tensors and plain data.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such {kind}")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise InputError(f"{path}: not a readable {kind} (damaged, or more than tensors and plain data)") from None
    except Exception as error:  # a foreign file breaks the unpickler in any way it likes
        reason = str(error).strip().partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a readable {kind} ({reason})") from None
