"""What training left: the folder of a run, or one of its checkpoints -> configuration, classes and network."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.assemble import build_model
from cbam3d.config import Config
from cbam3d.engine.train import weights_of
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.parsing import config_of


@dataclass(frozen=True)
class Saved:
    """A checkpoint and the configuration that it was trained with."""

    path: Path
    state: dict[str, Any]
    config: Config

    @property
    def folder(self) -> Path:
        """Of the run; of a checkpoint that lies elsewhere, one beside it that has its name."""
        return self.path.parent.parent if self.path.parent.name == "checkpoints" else self.path.with_suffix("")

    @property
    def classes(self) -> list[str]:
        return self.state["classes"]

    @property
    def images(self) -> bool:
        """Whether it was trained on images, rather than videos."""
        return self.state["kind"] == "image"

    def model(self, config: Config | None = None) -> nn.Module:
        """The trained network, in evaluation mode; `config` in place of its own may change how it is built.

        Raises:
            InputError: weights that do not fit.
        """
        config = config or self.config
        unfilled = replace(config, model=replace(config.model, weights=None))
        weights = weights_of(self.state)
        self._compare_shapes(unfilled, weights)
        model = build_model(unfilled, len(self.classes), self.images)
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise InputError(f"{self.path} does not fit the network: {reason}") from None
        return model.eval()

    def _compare_shapes(self, config: Config, weights: dict[str, Tensor]) -> None:
        """Raise InputError for a network that has other shapes than its weights, before memory is taken for it."""
        try:
            with torch.device("meta"):
                shapes = build_model(config, len(self.classes), self.images).state_dict()
        except Exception:  # a network that computes as it is built
            return
        for name in shapes.keys() & weights.keys():
            if shapes[name].shape != weights[name].shape:
                here, there = (tuple(tensors[name].shape) for tensors in (weights, shapes))
                raise InputError(f"{self.path} does not fit the network: {name} has shape {here}, the network {there}")


def open_saved(path: str | Path, checkpoint: str = "last") -> Saved:
    """Read the checkpoint of a run.

    Args:
        path: folder of a run, or a file of its checkpoints.
        checkpoint: which of a folder: last or best.

    Raises:
        InputError: no run there, or no checkpoint of `cbam3d train`.
    """
    path = Path(path)
    if not path.is_file():
        if not (path / "config.yaml").is_file():
            raise InputError(f"{path}: no run in this folder (config.yaml is missing)")
        path = path / "checkpoints" / f"{checkpoint}.ckpt"
    state = load_tensors(path, "checkpoint")
    check_state(state, path)
    try:
        return Saved(path, state, config_of(state["config"]))
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def check_state(state: Any, path: Path) -> None:
    """Raise InputError where what a file holds is not what `cbam3d train` writes."""
    entries = state if isinstance(state, dict) else {}
    config, classes = entries.get("config"), entries.get("classes")
    whole = (
        isinstance(config, dict)
        and all(isinstance(section, dict) for section in config.values())
        and isinstance(classes, list)
        and all(isinstance(name, str) for name in classes)
        and entries.get("kind") in ("video", "image")
        and _holds_tensors(entries.get("model"))
        and (entries.get("average") is None or _holds_tensors(entries["average"]))
        and isinstance(entries.get("state"), dict)
        and isinstance(entries["state"].get("epoch"), int)
    )
    if not whole:
        raise InputError(f"{path}: not a checkpoint of cbam3d train")


def _holds_tensors(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in entries.items()
    )
