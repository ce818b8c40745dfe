"""Scores of clips and of videos, from one pass over the held-out data.

The protocol of the field (torchvision's video references, SlowFast): a clip's score is the softmax of its
logits; a video's score is the mean over its clips. Each video is scored once, for any number of processes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange, repeat
from lightning_fabric import Fabric
from torch import Tensor, nn
from torch.nn import functional as F
from torchmetrics import MeanMetric, SumMetric
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

from cbam3d.engine.scores import Predictions
from cbam3d.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """Scores by name, counts by name, the confusion of the videos (true, predicted), what was skipped, and each
    video's (image's) probabilities."""

    scores: dict[str, float]
    counts: dict[str, int]
    confusion: Tensor
    problems: list[tuple[str, str]] = field(default_factory=list)
    predictions: Predictions = field(default_factory=Predictions.none)


@torch.no_grad()
def evaluate(
    fabric: Fabric, model: nn.Module, loader: Iterable[Any], num_classes: int, batch_size: int, images: bool
) -> Evaluation:
    """Score a model.

    Args:
        fabric: decides device and precision, and joins the processes.
        model: (N, C, *S) -> (N, num_classes), on the device, without Fabric's wrapper, in which processes with
            different numbers of batches would wait for each other for ever; left in evaluation mode.
        loader: yields batches with `inputs` (N·V, C, *S), `labels` (N,) and `problems`.
        num_classes: K.
        batch_size: views a forward pass.
        images: name the scores top1 and top5, as there are no clips.

    Returns: `loss` (mean cross-entropy of the views) and, for videos, clip_top1, clip_top5, video_top1,
    video_top5, all 0 … 1; for images top1, top5. Top-5 of fewer than five classes is top-K.
    """
    model.eval()
    top5 = min(5, num_classes)

    def accuracy(k: int) -> MulticlassAccuracy:
        return MulticlassAccuracy(num_classes, top_k=k, average="micro", validate_args=False).to(fabric.device)

    clip = {"clip_top1": accuracy(1), "clip_top5": accuracy(top5)}
    video = {"video_top1": accuracy(1), "video_top5": accuracy(top5)}
    confusion = MulticlassConfusionMatrix(num_classes).to(fabric.device)
    loss = MeanMetric().to(fabric.device)
    num_videos, num_clips = SumMetric().to(fabric.device), SumMetric().to(fabric.device)
    problems: list[tuple[str, str]] = []
    rows: list[tuple[str, int, np.ndarray]] = []  # name, label, probabilities

    for batch in loader:
        problems += batch.problems
        num_videos.update(len(batch.labels))
        if not len(batch.labels):
            continue
        with fabric.autocast():
            logits = torch.cat([model(part).float() for part in batch.inputs.split(batch_size)])
        labels = batch.labels
        views = rearrange(logits.softmax(1), "(n v) k -> n v k", n=len(labels))
        view_labels = repeat(labels, "n -> (n v)", v=views.shape[1])
        loss.update(F.cross_entropy(logits, view_labels, reduction="none"))
        for metric in clip.values():
            metric.update(logits, view_labels)
        for metric in (*video.values(), confusion):
            metric.update(views.mean(1), labels)
        num_clips.update(len(logits))
        rows += zip(batch.names, labels.tolist(), views.mean(1).cpu().numpy(), strict=True)

    problems = gather(fabric, problems)
    if not num_videos.compute():
        raise InputError("no item could be scored" + (f", the first problem: {problems[0]}" if problems else ""))
    named = {k.removeprefix("video_"): m for k, m in video.items()} if images else clip | video
    scores = {"loss": loss} | named
    counts = {"num_images" if images else "num_videos": num_videos}
    if not images:
        counts["num_clips"] = num_clips
    return Evaluation(
        scores={name: float(metric.compute()) for name, metric in scores.items()},
        counts={name: int(metric.compute()) for name, metric in counts.items()} | {"num_skipped": len(problems)},
        confusion=confusion.compute().cpu(),
        problems=problems,
        predictions=Predictions.of(gather(fabric, rows)),
    )


def gather(fabric: Fabric, items: list[Any]) -> list[Any]:
    """The items of all processes, in each of them."""
    if fabric.world_size == 1:
        return items
    gathered: list[list[Any]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
