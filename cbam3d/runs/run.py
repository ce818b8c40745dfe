"""A run: the folder that training left, and what can be done with it."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from cbam3d.config import Config
from cbam3d.errors import InputError
from cbam3d.models.repository import METRICS, WEIGHTS
from cbam3d.runs.checkpoint import PREFIX, Checkpoint, folder_of, open_checkpoint, read_metrics
from cbam3d.runs.evaluation import evaluate
from cbam3d.runs.explainer import Explainer
from cbam3d.runs.explanation import Explanation
from cbam3d.runs.export import export
from cbam3d.runs.hub import push, save_pretrained
from cbam3d.runs.network import check_network
from cbam3d.runs.predictor import Predictor
from cbam3d.runs.report import report
from cbam3d.runs.results import Result

Which = Literal["last", "best"]


@dataclass(frozen=True)
class Run:
    """What training left.

    Args:
        path: the folder, or a file of its checkpoints.
        config: the configuration that it was trained with.
        classes: names in the order of their numbers.
        images: whether it was trained on images, rather than videos.
        network: the network that training was given, where it was; its weights are not touched.
        trust_code: import the class of the network, where `model.name` is package.module:Class.
        result: the scores of the end of training; None for a run that was opened.

    Examples:
        >>> import cbam3d
        >>> run = cbam3d.open_run("runs/mine")
        >>> result = run.evaluate({"eval.num_clips": 2})
        >>> result.counts["num_skipped"]
        0
    """

    path: Path
    config: Config
    classes: list[str]
    images: bool
    network: nn.Module | None = None
    trust_code: bool = False
    result: Result | None = None

    def __repr__(self) -> str:
        score = ""
        if self.is_last and (self.folder / METRICS).is_file():
            with suppress(InputError):
                metrics = self.metrics
                score = f", {metrics['leading_score']} {metrics[metrics['leading_score']]:.2%}"
        return f"Run({str(self.path)!r}, {self.config.model.name}, {len(self.classes):,} classes{score})"

    @property
    def folder(self) -> Path:
        """Where it is; of a checkpoint that lies elsewhere, where results go."""
        return folder_of(self.path) if self.path.is_file() else self.path

    @property
    def is_last(self) -> bool:
        """Whether it is the network of the last epoch, which the scores of training are of."""
        return self.path == self.folder or self.path.name in ("last.ckpt", WEIGHTS)

    @property
    def metrics(self) -> dict[str, Any]:
        """The scores of the end of training, with intervals and counts: `metrics.json`.

        Raises:
            InputError: training has not ended.
        """
        return read_metrics(self.folder)

    def checkpoint(self, checkpoint: Which = "last") -> Checkpoint:
        """One of its checkpoints, as it was saved."""
        return open_checkpoint(self.path, checkpoint)

    def model(self, checkpoint: Which = "last") -> nn.Module:
        """The trained network on the CPU, in evaluation mode.

        Raises:
            InputError: weights that do not fit, or a class that is not trusted.
        """
        return self.checkpoint(checkpoint).model(**self._how)

    def evaluate(
        self, overrides: Mapping[str, Any] | None = None, *, checkpoint: Which = "last", split: str = "test"
    ) -> Result:
        """Score the run again on its held-out data, and write `evaluation.json` and the folder `evaluation`.

        Args:
            overrides: values of the configuration to change, by key: {"eval.num_clips": 10, "eval.num_crops": 3}.
            checkpoint: "last" or "best".
            split: "test" or "val".

        Raises:
            InputError: data that is not there or has other classes, videos that changed since, or a key that decides
                what is held out.
        """
        return evaluate(self.checkpoint(checkpoint), overrides, split, **self._how)

    def predictor(self, device: torch.device | str = "cpu", checkpoint: Which = "last") -> Predictor:
        """What maps files to classes and probabilities.

        Raises:
            InputError: no such device, or weights that do not fit.
        """
        return Predictor.of(self.checkpoint(checkpoint), device, **self._how)

    def explainer(
        self,
        device: torch.device | str = "cpu",
        checkpoint: Which = "last",
        *,
        blocks: Sequence[str] = (),
        layer: str | None = None,
    ) -> Explainer:
        """What maps files to explanations: the maps of the attention and, with captum, Grad-CAM.

        Args:
            device: where the network computes.
            checkpoint: "last" or "best".
            blocks: patterns of the names of attention blocks ("layer4.*"); () for all.
            layer: the module whose features Grad-CAM weighs; None for the last one with positions.

        Raises:
            InputError: a layer that the network does not have, no such device, or weights that do not fit.
        """
        return Explainer(self.predictor(device, checkpoint), blocks, layer)

    def explain(self, path: str | Path, target: str | None = None, **options: Any) -> Explanation:
        """Where the network looks in a video or an image; `save` writes it as images.

        Args:
            path: the file.
            target: the class that Grad-CAM asks for; None for the most probable one.
            options: of `explainer`.

        Raises:
            InputError: a file that cannot be read, an unknown class, block or layer, or nothing to show.
        """
        return self.explainer(**options)(path, target)

    def export(
        self,
        format: Literal["torch", "onnx"] = "torch",
        *,
        checkpoint: Which = "last",
        out: str | Path | None = None,
    ) -> tuple[Path, float]:
        """Write the network as a torch.export program or as ONNX, for batches of any size, and check it.

        Args:
            format: "torch" (.pt2) or "onnx" (.onnx, the extra `export`).
            checkpoint: "last" or "best".
            out: the file; None for export/model in the folder of the run.

        Returns: the file, with a .json beside it that describes inputs and outputs; and the maximum difference of its
        logits from the original's on random inputs, relative to the largest logit.

        Raises:
            InputError: a wrong suffix, a missing extra, or a program that differs from the original.
        """
        return export(self.checkpoint(checkpoint), format, None if out is None else Path(out), **self._how)

    def save_pretrained(
        self, folder: str | Path, repository: str = "owner/name", *, license: str = "", citation: str = ""
    ) -> Path:
        """Write weights (safetensors), configuration and classes (`config.json`), scores (`metrics.json`) and a card
        (`README.md`) to a folder, which `load_run` reads: what `push_to_hub` uploads.

        Args:
            folder: made where it is missing.
            repository: the name that the card gives.
            license: of the weights, as the Hub names it ("cc-by-4.0").
            citation: BibTeX for the card.

        Raises:
            InputError: training has not ended, or a folder that cannot be written.
        """
        save_pretrained(self.checkpoint(), Path(folder), repository, license, citation)
        return Path(folder)

    def push_to_hub(self, repository: str, *, private: bool = False, license: str = "", citation: str = "") -> str:
        """Upload it to the Hugging Face Hub (extra `hub`): `load_run("hf:owner/name")` then loads it anywhere. Paths of
        this machine stay here.

        Args:
            repository: "owner/name", created where it is missing.
            private: for a new one.
            license: see `save_pretrained`.
            citation: likewise.

        Returns: its address.

        Raises:
            InputError: training has not ended, no access, or no network.
        """
        return push(self.checkpoint(), repository, private, license=license, citation=citation)

    def report(self, out: str | Path | None = None, *, mistakes: int = 12) -> Path:
        """Write one HTML page about the run that needs no other file: configuration, curves, scores with intervals,
        classes, confusion, and the most confident mistakes with what the attention did.

        Args:
            out: the page; None for report.html in the folder of the run.
            mistakes: number of the most confident mistakes to show.

        Raises:
            InputError: training has not ended, or a path that cannot be written.
        """
        return report(self.checkpoint(), self.path, None if out is None else Path(out), mistakes, **self._how)

    @property
    def _how(self) -> dict[str, Any]:
        return {"network": self.network, "trust_code": self.trust_code}


def open_run(path: str | Path, *, model: nn.Module | None = None, trust_code: bool = False) -> Run:
    """Open what training left.

    Args:
        path: the folder of a run, a file of its checkpoints, or "hf:owner/name".
        model: a network like the one that was passed to `train`, where one was.
        trust_code: import the class of the network where the run names it by package.module:Class. A checkpoint from a
            stranger could name any class that is installed.

    Raises:
        InputError: no run there, or no checkpoint of `cbam3d train`.

    Examples:
        >>> import cbam3d
        >>> run = cbam3d.open_run("runs/mine")
        >>> run.config.model.name
        'resnet10'
    """
    check_network(model)
    saved = open_checkpoint(path)
    return Run(
        saved.path if str(path).startswith(PREFIX) else Path(path),
        saved.config,
        saved.classes,
        saved.images,
        model,
        trust_code,
    )
