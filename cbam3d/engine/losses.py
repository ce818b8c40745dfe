"""What training minimises."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.errors import InputError, counted

_BETA = 0.999  # of effective numbers
Weighting = Literal["balanced", "effective"] | Sequence[float] | None


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, in sum over the samples of a batch: of the classes, of which one holds; or of each class apart, in
    sum over the classes, where any number of them holds.

    Args:
        label_smoothing: share of a label that is spread over all classes, or between yes and no, 0 … 1.
        weights: of the classes, (K,), apart: where they hold; None for 1.
        offsets: added to the logits, (K,); None for 0.
        apart: each class is decided by itself (binary cross-entropy).
    """

    label_smoothing: float = 0.0
    weights: Tensor | None = None
    offsets: Tensor | None = None
    apart: bool = False

    def to(self, device: torch.device) -> "Loss":
        """The same on a device."""
        weights, offsets = (one if one is None else one.to(device) for one in (self.weights, self.offsets))
        return replace(self, weights=weights, offsets=offsets)

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: logits (N, K); or an object of a network's own with a method `loss(targets, label_smoothing)`, as
                `RAM` returns in training.
            targets: classes (N,), or their probabilities (N, K), or which of them hold (N, K).

        Raises:
            InputError: weights or offsets for a network whose loss is its own.
        """
        if not isinstance(outputs, Tensor):
            if self.weights is not None or self.offsets is not None or self.apart:
                keys = "train.class_weights, train.logit_adjustment, train.loss bce"
                raise InputError(f"{keys}: the network has a loss of its own")
            return outputs.loss(targets, self.label_smoothing)
        if self.offsets is not None:
            outputs = outputs + self.offsets.to(outputs)
        weights = None if self.weights is None else self.weights.to(outputs)
        if self.apart:
            yes = (F.one_hot(targets, outputs.shape[1]) if targets.ndim == 1 else targets).to(outputs)
            yes = yes * (1 - self.label_smoothing) + self.label_smoothing / 2
            return F.binary_cross_entropy_with_logits(outputs, yes, pos_weight=weights, reduction="sum")
        return F.cross_entropy(outputs, targets, weights, label_smoothing=self.label_smoothing, reduction="sum")


def create_loss(
    label_smoothing: float,
    weighting: Weighting,
    adjustment: float,
    counts: Sequence[float],
    classes: Sequence[str],
    num_samples: int | None = None,
) -> Loss:
    """The loss of a training set.

    Args:
        label_smoothing: see `Loss`.
        weighting: "balanced" weighs a class by 1 / n, where n is the number of its samples; "effective" by the inverse
            of its effective number (1 - β^n) / (1 - β), β = 0.999 (Cui et al., CVPR 2019,
            https://arxiv.org/abs/1901.05555); or a weight for each class. The mean over samples is made 1. None weighs
            none.
        adjustment: τ ≥ 0; τ·log(n / N) is added to the logits in training (Menon et al., ICLR 2021,
            https://arxiv.org/abs/2007.07314), so that the network's own favour no frequent class.
        counts: samples of each class.
        classes: their names.
        num_samples: of all, where classes are decided apart: "balanced" then weighs a class where it holds by the ratio
            of the samples without it to those with it. None for one class a sample.

    Raises:
        InputError: another number of weights than classes, or what is only meant for one class a sample.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    weights = offsets = None
    if num_samples is not None and (adjustment or weighting == "effective"):
        key = "train.logit_adjustment" if adjustment else "train.class_weights effective"
        raise InputError(f"{key} is for train.loss cross_entropy, of which one class holds")
    if weighting is not None:
        if weighting == "balanced" and num_samples is not None:
            return Loss(label_smoothing, ((num_samples - n) / n.clamp(min=1)).float(), apart=True)
        if weighting == "balanced":
            weights = 1 / n
        elif weighting == "effective":
            weights = (1 - _BETA) / (1 - _BETA**n)
        else:
            if len(weighting) != len(classes):
                given = counted(len(weighting), "weight")
                raise InputError(f"train.class_weights: {given} for {len(classes)} classes ({', '.join(classes[:5])})")
            weights = torch.tensor(weighting, dtype=torch.float64)
            if num_samples is not None:
                return Loss(label_smoothing, weights.float(), apart=True)
        weights = weights.where(n > 0, 0)  # a class without samples has no loss
        if not (weights * n).sum():
            raise InputError("train.class_weights: all classes that have samples have the weight 0")
        weights = (weights * n.sum() / (weights * n).sum()).float()
    if adjustment:
        offsets = (adjustment * (n.clamp(min=1) / n.sum()).log()).float()
    return Loss(label_smoothing, weights, offsets, apart=num_samples is not None)
