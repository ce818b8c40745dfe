"""Files of repositories of the Hugging Face hub. Needs the extra `hub` (huggingface_hub), when it is asked for."""

from importlib import import_module
from pathlib import Path
from typing import Any

from cbam3d.errors import InputError

WEIGHTS, CONFIG = "model.safetensors", "config.json"


def download(repository: str) -> Path:
    """The folder of the hub's cache with WEIGHTS and, where there is one, CONFIG of a repository "owner/name".

    Raises:
        InputError: no such repository, no network, or no huggingface_hub.
    """
    try:
        return Path(hub().snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG]))
    except InputError:
        raise
    except Exception as error:  # of many kinds: no network, no such repository, no right to it
        reason = str(error).partition("\n")[0]
        raise InputError(f"{repository}: neither a folder nor a repository that can be read ({reason})") from None


def hub() -> Any:
    """The library."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise InputError('the hub needs huggingface_hub: pip install "cbam3d[hub]"') from None
