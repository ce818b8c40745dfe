"""Repositories of the Hugging Face Hub: download, upload; needs the extra `hub` (huggingface_hub)."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cbam3d import __version__
from cbam3d.errors import InputError, reason_of

PREFIX = "hf:"  # of repositories of the Hugging Face Hub, where a path may be meant
WEIGHTS, CONFIG, METRICS = "model.safetensors", "config.json", "metrics.json"


def download(repository: str) -> Path:
    """Download WEIGHTS and, if present, CONFIG and METRICS of a repository "owner/name"; return the cache folder.

    Raises:
        InputError: no such repository, no network, or no huggingface_hub.
    """
    library = _library()
    try:
        return Path(library.snapshot_download(repository, allow_patterns=[WEIGHTS, CONFIG, METRICS]))
    except Exception as error:  # of many types: no network, no such repository, no access
        reason = reason_of(error)
        raise InputError(f"{repository}: neither a folder nor a repository that can be read ({reason})") from None


def separate(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Entries each with memory of its own, as safetensors wants them: weights may be tied."""
    return {key: value.clone(memory_format=torch.contiguous_format) for key, value in state.items()}


def check_name(repository: str) -> None:
    """Raise InputError for what is not "owner/name"."""
    owner, _, name = repository.partition("/")
    if not owner or not name or "/" in name:
        raise InputError(f"push: a repository is called owner/name, got {repository!r}")


def upload(folder: str | Path, repository: str, private: bool = False) -> str:
    """Upload a folder to a repository "owner/name", which is created where it is missing; return its address.

    Raises:
        InputError: no access, no network, or no huggingface_hub.
    """
    library = _library()
    try:
        api = library.HfApi()
        address = api.create_repo(repository, private=private, exist_ok=True)
        api.upload_folder(repo_id=repository, folder_path=folder, commit_message=f"cbam3d {__version__}")
    except Exception as error:  # of many types: no token, no network, no such owner
        raise InputError(f"{repository}: cannot be pushed ({reason_of(error)})") from None
    return str(address)


def _library() -> Any:
    try:
        return import_module("huggingface_hub")
    except ImportError:
        raise InputError('the hub needs huggingface_hub: pip install "cbam3d[hub]"') from None
