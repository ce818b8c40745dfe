"""What training left: the folder of a run, or one of its checkpoints -> configuration, classes and network."""

import json
from copy import deepcopy
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbam3d.config import Config
from cbam3d.engine.checkpoint import checkpoint_path
from cbam3d.engine.train import weights_of
from cbam3d.errors import InputError
from cbam3d.files import load_tensors
from cbam3d.models.repository import CONFIG, METRICS, PREFIX, WEIGHTS, download
from cbam3d.models.zoo import needs_import
from cbam3d.runs.network import build_model

PRETRAINED = "run"  # the format that CONFIG names, where it is not the arguments of a network


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint and the configuration that it was trained with."""

    path: Path
    state: dict[str, Any]
    config: Config

    @property
    def folder(self) -> Path:
        """The folder of the run; of a checkpoint that lies elsewhere, one beside it that has its name."""
        return folder_of(self.path)

    @property
    def classes(self) -> list[str]:
        return self.state["classes"]

    @property
    def images(self) -> bool:
        """Whether it was trained on images, rather than videos."""
        return self.state["kind"] == "image"

    @property
    def drawn(self) -> str:
        """See `Source.drawn`; empty in what an older version wrote."""
        return self.state.get("drawn", "")

    @property
    def epoch(self) -> int:
        """Number of finished epochs."""
        return self.state["state"]["epoch"]

    @property
    def thresholds(self) -> np.ndarray | None:
        """The probabilities, (K,), from which on classes are taken to hold, where they are decided apart: those found
        on validation data by the last evaluation, or else 0.5."""
        if not self.config.classes_apart:
            return None
        if self.state.get("thresholds") is not None:
            return np.array(self.state["thresholds"], float)
        try:
            metrics = read_metrics(self.folder)
            known = metrics["thresholds"] if metrics.get("epoch") == self.epoch else {}
            return np.array([known.get(name, 0.5) for name in self.classes], float)
        except (InputError, KeyError, TypeError, ValueError, AttributeError):
            return np.full(len(self.classes), 0.5)

    def model(
        self, config: Config | None = None, network: nn.Module | None = None, trust_code: bool = False
    ) -> nn.Module:
        """The trained network, in evaluation mode.

        Args:
            config: in place of the run's own, where something of how it is built is to change.
            network: one to copy and fill, where training was given one.
            trust_code: import the class that the configuration names by package.module:Class.

        Raises:
            InputError: weights that do not fit, or a class that is neither imported already nor trusted.
        """
        self.refuse_untrusted(network, trust_code)
        config = (config or self.config).override({"model.weights": None})
        weights = weights_of(self.state)
        if network is not None:
            model = deepcopy(network)
        else:
            self._compare_shapes(config, weights)
            model = build_model(config, len(self.classes), self.images)
        self.fill(model, weights)
        return model.eval()

    def refuse_untrusted(self, network: nn.Module | None = None, trust_code: bool = False) -> None:
        """Raise InputError for a network that is code to import, unless one is given or the code is trusted."""
        name = self.config.model.name
        if network is None and needs_import(name) and not trust_code:
            raise InputError(
                f"{self.path}: its network is the class {name}, which is code: import its module first, or trust it "
                "(trust_code=True, --trust-code)"
            )

    def fill(self, model: nn.Module, weights: dict[str, Tensor]) -> None:
        """Load weights of this checkpoint into a network.

        Raises:
            InputError: they do not fit.
        """
        try:
            model.load_state_dict(weights)
        except RuntimeError as error:
            reason = str(error).splitlines()[1].strip()
            raise InputError(f"{self.path} does not fit the network: {reason}") from None

    def _compare_shapes(self, config: Config, weights: dict[str, Tensor]) -> None:
        """Raise InputError for a network of other names or shapes than its weights, before memory is taken for it."""
        try:
            with torch.device("meta"):
                shapes = build_model(config, len(self.classes), self.images).state_dict()
        except Exception:  # a network that computes as it is built
            return
        missing = [name for name in shapes if name not in weights and not name.endswith("num_batches_tracked")]
        if missing:
            raise InputError(f"{self.path} does not fit the network: {missing[0]} is missing")
        for name, tensor in weights.items():
            if name in shapes and shapes[name].shape != tensor.shape:
                here, there = (tuple(tensors[name].shape) for tensors in (weights, shapes))
                raise InputError(f"{self.path} does not fit the network: {name} has shape {here}, the network {there}")


def folder_of(path: Path) -> Path:
    """The folder of the run of a checkpoint; of one that lies elsewhere, a folder beside it that has its name."""
    if path.name == WEIGHTS:
        return path.parent
    return path.parent.parent if path.parent.name == "checkpoints" else path.with_suffix("")


def read_metrics(folder: Path) -> dict[str, Any]:
    """The scores of the end of training.

    Raises:
        InputError: it has not ended, or the file is another's.
    """
    path = folder / METRICS
    if not path.is_file():
        raise InputError(f"{folder}: training has not ended ({METRICS} is missing)")
    try:
        metrics = json.loads(path.read_text("utf-8"))
        if {"intervals_95", metrics["leading_score"]} <= metrics.keys():
            return metrics
    except (ValueError, KeyError, TypeError, AttributeError):
        pass
    raise InputError(f"{path}: not the scores of a training of this version")


def open_checkpoint(path: str | Path, checkpoint: str = "last") -> Checkpoint:
    """Read the checkpoint of a run.

    Args:
        path: folder of a run, a file of its checkpoints, a folder that `Run.save_pretrained` wrote, or a repository of
            the Hub as "hf:owner/name".
        checkpoint: which one of a folder: last or best.

    Raises:
        InputError: no run there, or no checkpoint of `cbam3d train`.
    """
    text, path = str(path), Path(path)
    pretrained = path.parent if path.name == WEIGHTS else path
    whole = text.startswith(PREFIX) or path.is_file() or (pretrained / CONFIG).is_file()
    if checkpoint not in ("last", path.stem) and whole:
        raise InputError(f"{text}: has one checkpoint, {checkpoint} is of the folder of a run")
    if text.startswith(PREFIX):
        return _read_pretrained(download(text.removeprefix(PREFIX)), text)
    if (pretrained / CONFIG).is_file():
        return _read_pretrained(pretrained, text)
    if not path.is_file():
        if not (path / "config.yaml").is_file():
            made = [str(run.parent) for run in Path("runs").glob("*/config.yaml")]
            near = get_close_matches(text, made, n=1)
            known = f"; there are {', '.join(sorted(made)[:5])}" if made else ""
            hint = f": did you mean {near[0]}?" if near else known
            raise InputError(f"{path}: no run in this folder (config.yaml is missing){hint}")
        path = checkpoint_path(path, checkpoint)
    return read_checkpoint(path)


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a file; keys that the configuration in it does not have take their defaults.

    Raises:
        InputError: no such file, no checkpoint of `cbam3d train`, or keys and values that this version does not know.
    """
    return _checkpoint(path, load_tensors(path, "checkpoint"), f"{path}: not a checkpoint of cbam3d train")


def _read_pretrained(folder: Path, source: str) -> Checkpoint:
    """What `Run.save_pretrained` wrote."""
    try:
        facts = json.loads((folder / CONFIG).read_text())
        if facts.get("format") != PRETRAINED:
            raise InputError(f"{source}: no run of cbam3d ({CONFIG} describes none)")
        state = {name: facts[name] for name in ("kind", "classes", "config")}
        state |= {"state": {"epoch": facts["epoch"]}, "average": None, "new_parameters": []}
        state["drawn"] = str(facts.get("drawn", ""))
    except InputError:
        raise
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{source}: no readable {CONFIG} of a run ({error})") from None
    state["model"] = load_tensors(folder / WEIGHTS, "weights file")
    return _checkpoint(folder / WEIGHTS, state, f"{source}: {CONFIG} describes no run of cbam3d")


def _checkpoint(path: Path, state: Any, misfit: str) -> Checkpoint:
    if not _is_whole(state):
        raise InputError(misfit)
    try:
        return Checkpoint(path, state, Config().override(state["config"]))
    except InputError as error:
        raise InputError(f"{path}: its configuration: {error}") from None


def _is_whole(state: Any) -> bool:
    """Whether what a file holds is what `cbam3d train` writes."""
    entries = state if isinstance(state, dict) else {}
    config, classes = entries.get("config"), entries.get("classes")
    return (
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


def _holds_tensors(entries: Any) -> bool:
    return isinstance(entries, dict) and all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in entries.items()
    )
