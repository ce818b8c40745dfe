"""What training minimises."""

from typing import Any

from torch import Tensor
from torch.nn import functional as F


def sum_of_losses(outputs: Any, targets: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """The loss of a batch, in sum over its samples.

    Args:
        outputs: logits (N, K), for cross-entropy; or an object of a network's own with a method
            `loss(targets, label_smoothing)`, as `RAM` returns in training.
        targets: classes (N,), or their probabilities (N, K).
        label_smoothing: 0 … 1.
    """
    if isinstance(outputs, Tensor):
        return F.cross_entropy(outputs, targets, label_smoothing=label_smoothing, reduction="sum")
    return outputs.loss(targets, label_smoothing)
