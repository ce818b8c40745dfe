"""What training minimises."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.errors import InputError, counted

_BETA = 0.999  # of effective numbers
Weighting = Literal["balanced", "effective"] | Sequence[float] | None


@dataclass(frozen=True)
class Loss:
    """Cross-entropy, in sum over the samples of a batch.

    Args:
        label_smoothing: share of a label that is spread over all classes, 0 … 1.
        weights: of the classes, (K,); None for 1.
        offsets: added to the logits, (K,); None for 0.
    """

    label_smoothing: float = 0.0
    weights: Tensor | None = None
    offsets: Tensor | None = None

    def __call__(self, outputs: Any, targets: Tensor) -> Tensor:
        """The loss of a batch.

        Args:
            outputs: logits (N, K); or an object of a network's own with a method `loss(targets, label_smoothing)`, as
                `RAM` returns in training.
            targets: classes (N,), or their probabilities (N, K).

        Raises:
            InputError: weights or offsets for a network whose loss is its own.
        """
        if not isinstance(outputs, Tensor):
            if self.weights is not None or self.offsets is not None:
                raise InputError("train.class_weights, train.logit_adjustment: the network has a loss of its own")
            return outputs.loss(targets, self.label_smoothing)
        if self.offsets is not None:
            outputs = outputs + self.offsets.to(outputs)
        weights = None if self.weights is None else self.weights.to(outputs)
        return F.cross_entropy(outputs, targets, weights, label_smoothing=self.label_smoothing, reduction="sum")


def create_loss(
    label_smoothing: float, weighting: Weighting, adjustment: float, counts: Sequence[int], classes: Sequence[str]
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

    Raises:
        InputError: another number of weights than classes.
    """
    n = torch.tensor(counts, dtype=torch.float64)
    weights = offsets = None
    if weighting is not None:
        if weighting == "balanced":
            weights = 1 / n
        elif weighting == "effective":
            weights = (1 - _BETA) / (1 - _BETA**n)
        else:
            if len(weighting) != len(classes):
                given = counted(len(weighting), "weight")
                raise InputError(f"train.class_weights: {given} for {len(classes)} classes ({', '.join(classes[:5])})")
            weights = torch.tensor(weighting, dtype=torch.float64)
        weights = weights.where(n > 0, 0)  # a class without samples has no loss
        if not (weights * n).sum():
            raise InputError("train.class_weights: all classes that have samples have the weight 0")
        weights = (weights * n.sum() / (weights * n).sum()).float()
    if adjustment:
        offsets = (adjustment * (n.clamp(min=1) / n.sum()).log()).float()
    return Loss(label_smoothing, weights, offsets)
