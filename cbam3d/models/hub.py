"""Weights on the Hugging Face Hub: a repository with `model.safetensors` and, for `from_pretrained`, `config.json`.

Examples:
    >>> from cbam3d import create_model
    >>> from cbam3d.models.hub import from_pretrained, save_pretrained
    >>> arguments = {"name": "resnet10", "num_classes": 10, "attention": "se", "width": 8}
    >>> save_pretrained(create_model(**arguments), "se_resnet10", **arguments)
    >>> type(from_pretrained("se_resnet10")).__name__
    'ResNet'
"""

import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import save_file
from torch import nn

from cbam3d.errors import InputError
from cbam3d.models.repository import CONFIG, WEIGHTS, check_name, download, separate, upload
from cbam3d.models.weights import load_weights
from cbam3d.models.zoo import create_model, needs_import


def save_pretrained(model: nn.Module, folder: str | Path, **arguments: Any) -> None:
    """Save the weights, and the arguments of `create_model` that build the network, to a folder.

    Args:
        model: the network.
        folder: made where it is missing; gets `model.safetensors` and `config.json`.
        arguments: of `create_model`; weights are those saved here.
    """
    arguments = {key: value for key, value in arguments.items() if key not in ("weights", "weights_match")}
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    save_file(separate(model.state_dict()), folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(arguments, indent=2) + "\n")


def from_pretrained(source: str | Path) -> nn.Module:
    """Load a network from a folder of `save_pretrained`, or from a repository "owner/name" of the Hub.

    Raises:
        InputError: no such folder or repository, inconsistent files, or a network that is a class, of a module that is
            not imported already.
    """
    folder = Path(source)
    if not folder.is_dir():
        folder = download(str(source))
    try:
        arguments = json.loads((folder / CONFIG).read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{source}: no readable {CONFIG} ({error})") from None
    if not isinstance(arguments, dict) or not isinstance(name := arguments.get("name", ""), str):
        raise InputError(f"{source}: {CONFIG} describes no network")
    if arguments.get("format") == "run":
        raise InputError(f"{source} holds a run, with its classes: load_run reads it")
    if needs_import(name):
        raise InputError(f"{source}: its network is the class {name}, which is code: import its module first")
    if arguments.pop("weights", None) is not None:
        raise InputError(f"{source}: {CONFIG} names weights, and {WEIGHTS} holds them")
    try:
        model = create_model(**arguments)
    except (TypeError, ValueError) as error:
        raise InputError(f"{source}: {CONFIG} describes no valid network ({error})") from None
    load_weights(model, folder / WEIGHTS, require_complete=True)
    return model


def push_to_hub(model: nn.Module, repository: str, **arguments: Any) -> None:
    """Upload what `save_pretrained` writes to a repository "owner/name", created if missing.

    Raises:
        InputError: no such name, no access, no network, or no huggingface_hub.
    """
    check_name(repository)
    with TemporaryDirectory() as folder:
        save_pretrained(model, folder, **arguments)
        upload(folder, repository)
