"""What a finished training tells about itself, in a line, with what to try next."""

from math import log

from cbam3d.config import Config
from cbam3d.engine.records import EpochTable
from cbam3d.errors import counted
from cbam3d.runs.results import Result

_RISE = 1.15  # of the held-out loss from its minimum, which is more than noise between epochs
_FEW = 5_000  # training items, of which a network seldom learns enough from scratch


def advice(config: Config, table: EpochTable, result: Result, num_training: int) -> str:
    """What is wrong with a training that has ended, if anything.

    Args:
        config: of the run.
        table: its epochs.
        result: its scores on held-out items.
        num_training: training items.

    Returns: a line; empty where the network has learned something and was not overtrained.
    """
    few = config.model.weights is None and num_training < _FEW
    pretrained = f"; {counted(num_training, 'training item')} are few to learn from: start from pretrained weights"
    pretrained += ", as --config probe or finetune does" if not result.images else ""
    if learned_nothing(result):
        score, chance = f"{result.leading} {result.scores[result.leading]:.1%}", f"{result.chance:.1%}"
        text = f"{score} is not beyond chance ({chance}): nothing was learned that shows on held-out data"
        _, losses = table.column("train_loss")
        if len(losses) < 2 or losses[-1] > 0.95 * losses[0]:
            text += "; the training loss hardly fell: try more epochs, or another train.learning_rate"
    else:
        text = overtrained(table, result)
    return text + pretrained * (few and text != "")


def learned_nothing(result: Result) -> bool:
    """Whether chance lies within the interval of the leading score, or above it."""
    low, _ = result.bounded.get(result.leading, (result.scores[result.leading],) * 2)
    return low <= result.chance


def overtrained(table: EpochTable, result: Result) -> str:
    """What the held-out loss says where it has risen for a third of the training or more, or is above that of equal
    probabilities for all classes; else empty."""
    epochs, losses = table.column("loss")
    if not losses:
        return ""
    best = min(range(len(losses)), key=losses.__getitem__)
    one_label = result.evaluation.predictions.labels.ndim == 1
    if losses[-1] >= _RISE * losses[best] and epochs[best] <= epochs[-1] * 2 / 3:
        text = f"the held-out loss was lowest in epoch {epochs[best]} ({losses[best]:.3f}, now {losses[-1]:.3f})"
    elif one_label and losses[-1] > (uniform := log(len(result.classes))):
        text = (
            f"the held-out loss ({losses[-1]:.3f}) is above that of equal probabilities for all classes ({uniform:.3f})"
        )
    else:
        return ""
    return (
        f"{text}: the network knows its training data by heart; try more augmentation, model dropout, or "
        "train.early_stopping"
    )
