"""Scores of clips and of videos, from one pass over the held-out data.

The usual protocol (torchvision's video references, SlowFast): a clip's score is the softmax of its logits, a video's
score the mean over its clips. Each video is scored once, for any number of processes. Where classes are decided apart,
a clip's score is the sigmoid of its logits.
"""

from collections.abc import Iterable, Sized
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from einops import rearrange
from lightning_fabric import Fabric
from torch import Tensor, nn

from cbam3d.engine.losses import Loss
from cbam3d.engine.progress import Progress, ended, no_progress
from cbam3d.engine.scores import Predictions, ranks
from cbam3d.engine.several import Ranking
from cbam3d.errors import InputError


@dataclass(frozen=True)
class Evaluation:
    """Scores by name, counts by name, the confusion of the videos (true, predicted; None where they may have several
    labels), what was skipped, and the probabilities of each video (image)."""

    scores: dict[str, float]
    counts: dict[str, int]
    confusion: Tensor | None
    problems: list[tuple[str, str]] = field(default_factory=list)
    predictions: Predictions = field(default_factory=Predictions.none)


@torch.no_grad()
def score(
    fabric: Fabric,
    model: nn.Module,
    loader: Iterable[Any],
    num_classes: int,
    batch_size: int,
    images: bool,
    apart: bool = False,
    progress: Progress = no_progress,
) -> Evaluation:
    """Score a model.

    Args:
        fabric: decides device and precision, and joins the processes.
        model: (N, C, *S) -> (N, num_classes), on the device, without Fabric's wrapper, in which processes with
            different numbers of batches would deadlock; left in evaluation mode.
        loader: yields batches with `inputs` (N·V, C, *S), `labels` (N,) or (N, K), `names` and `problems`.
        num_classes: K.
        batch_size: views per forward pass.
        images: name the scores top1 and top5, as there are no clips.
        apart: classes are decided apart.
        progress: shows how far it is.

    Returns: `loss` (mean cross-entropy of the views) and, for videos, clip_top1, clip_top5, video_top1,
    video_top5, all 0 … 1; for images top1, top5. Five classes or fewer have no top-5. Where videos may have
    several labels, clip_map and video_map: the mean over classes of the average precision.

    Raises:
        InputError: no item could be scored, or outputs that are not finite.
    """
    model.eval()
    found = _Found(num_classes, apart)
    total = len(loader) if isinstance(loader, Sized) else 0
    with ended(progress(loader, total, lambda: "scoring")) as batches:
        for batch in batches:
            found.problems += batch.problems
            if not len(batch.labels):
                continue
            with fabric.autocast():
                logits = torch.cat([model(part).float() for part in batch.inputs.split(batch_size)])
            found.add(logits, batch.labels, batch.names)
    return found.evaluation(fabric, images)


class _Found:
    """What a process found, batch by batch; tensors stay on the device, and are read at the end."""

    def __init__(self, num_classes: int, apart: bool) -> None:
        self.num_classes, self.apart = num_classes, apart
        self.top = (1, 5) if num_classes > 5 else (1,)
        self.loss_of = Loss(apart=apart)
        self.problems: list[tuple[str, str]] = []
        self.names: list[str] = []
        self.num_views = 0
        self.sums: list[Tensor] = []  # over the views of a batch: loss, right, right among five
        self.labels: list[Tensor] = []  # of the items of a batch, and their probabilities
        self.probabilities: list[Tensor] = []
        self.views: list[tuple[Tensor, Tensor]] = []  # probabilities and labels, where there may be several

    def add(self, logits: Tensor, labels: Tensor, names: list[str]) -> None:
        """A batch: the views of an item one after the other."""
        views = rearrange(activate(logits, self.apart), "(n v) k -> n v k", n=len(labels))
        classes = labels.repeat_interleave(views.shape[1], 0)
        if classes.ndim == 1:
            order = ranks(logits, classes)
            right = [(order < k).sum() for k in self.top]
        else:
            right = [logits.new_zeros(())] * len(self.top)
            self.views.append((views.flatten(0, 1), classes))
        loss = self.loss_of(logits, classes if classes.ndim == 1 else classes.float())
        self.sums.append(torch.stack([loss, *right]))
        self.labels.append(labels)
        self.probabilities.append(views.mean(1))
        self.names += names
        self.num_views += len(logits)

    def evaluation(self, fabric: Fabric, images: bool) -> Evaluation:
        """Of what all processes found."""
        rows: list[tuple[str, Any, np.ndarray]] = []
        whole = np.zeros(2 + len(self.top))
        whole[0] = self.num_views
        if self.names:
            whole[1:] = torch.stack(self.sums).cpu().double().sum(0).numpy()
            parts = (torch.cat(tensors).cpu().numpy() for tensors in (self.labels, self.probabilities))
            rows = [*zip(self.names, *parts, strict=True)]
        num_views, loss, *right = np.sum(gather(fabric, [whole]), axis=0).tolist()
        problems, rows = gather(fabric, self.problems), gather(fabric, rows)
        views = gather(fabric, [tuple(part.cpu().numpy() for part in parts) for parts in self.views])
        given = _predictions(rows, problems)
        counts, confusion = {"num_videos": len(rows), "num_clips": int(num_views)}, None
        if given.several:
            of_clips = Ranking(*(np.concatenate(parts) for parts in zip(*views, strict=True))).mean()
            scores = {"clip_map": of_clips, "video_map": Ranking(given.probabilities, given.labels).mean()}
        else:
            of_items = {k: float(given.hits(k).mean()) for k in self.top}
            if images:
                scores, counts = {f"top{k}": value for k, value in of_items.items()}, {"num_images": len(rows)}
            else:
                scores = {f"clip_top{k}": count / num_views for k, count in zip(self.top, right, strict=True)}
                scores |= {f"video_top{k}": value for k, value in of_items.items()}
            pairs = given.labels * self.num_classes + given.probabilities.argmax(1)
            counted = np.bincount(pairs, minlength=self.num_classes**2).reshape(self.num_classes, self.num_classes)
            confusion = torch.from_numpy(counted)
        return Evaluation(
            scores={"loss": loss / num_views} | scores,
            counts=counts | {"num_skipped": len(problems)},
            confusion=confusion,
            problems=problems,
            predictions=given,
        )


def _predictions(rows: list[tuple[str, Any, np.ndarray]], problems: list[tuple[str, str]]) -> Predictions:
    """The items' predictions.

    Raises:
        InputError: there are none, or they are not finite.
    """
    if not rows:
        raise InputError("no item could be scored" + (f", the first problem: {problems[0]}" if problems else ""))
    given = Predictions.of(rows)
    if not (finite := np.isfinite(given.probabilities).all(1)).all():
        first = given.names[int(finite.argmin())]
        raise InputError(
            f"the network's outputs are not finite for {(~finite).sum()} of {len(rows)} items, the first is {first}: "
            "training has diverged, or the precision does not suffice"
        )
    return given


def activate(logits: Tensor, apart: bool) -> Tensor:
    """Probabilities of logits (N, K): that one class holds, or each apart."""
    return logits.sigmoid() if apart else logits.softmax(1)


def gather(fabric: Fabric, items: list[Any]) -> list[Any]:
    """The items of all processes, in each of them."""
    if fabric.world_size == 1:
        return items
    gathered: list[list[Any]] = [[] for _ in range(fabric.world_size)]
    torch.distributed.all_gather_object(gathered, items)
    return [item for part in gathered for item in part]
