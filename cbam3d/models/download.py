"""Download files from the Hugging Face Hub; needs the extra `hub` (huggingface_hub)."""

from importlib import import_module
from pathlib import Path
from typing import Any

from cbam3d.errors import InputError, reason_of

PREFIX = "hf:"  # of repositories of the Hugging Face Hub, where a path may be meant
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"


def download(repository: str) -> Path:
    """Download WEIGHTS and, if present, CONFIG and METRICS of a repository "owner/name"; return the cache folder.

    Raises:
        InputError: no such repository, no network, or no huggingface_hub.
    """
    try:
        return Path(hub().snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, METRICS]))
    except InputError:
        raise
    except Exception as error:  # of many types: no network, no such repository, no access
        reason = reason_of(error)
        raise InputError(f"{repository}: neither a folder nor a repository that can be read ({reason})") from None


def hub() -> Any:
    """Import huggingface_hub."""
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise InputError('the hub needs huggingface_hub: pip install "cbam3d[hub]"') from None
