"""Transform uint8 views of any size into one float batch, on the device.

All frames of a clip share one set of random parameters, which depends only on (seed, epoch, item, view), not on
the batch, worker or process.
"""

from collections.abc import Iterator, Sequence
from copy import copy
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from cbam3d.data.batch import Packed, SampleIndex
from cbam3d.data.crops import RandomCrop, RandomResizedCrop, Size
from cbam3d.data.parameters import Drawn, Transform, send
from cbam3d.data.rand_augment import RandAugment
from cbam3d.data.rng import Purpose, keys_of, torch_seeded
from cbam3d.data.transforms import ColorJitter, RandomErasing, RandomHorizontalFlip, RandomRotation

_BATCH = 2**32 - 1  # distinguishes a batch's key from those of its samples' views


def train_crops(
    size: Size,
    crop_scale: tuple[float, float] | None = None,
    crop_padding: int = 0,
    rand_augment: tuple[int, int] | None = None,
) -> list[Transform]:
    """Random training crops for views of the same shape: uint8 -> uint8 (N, …, 3, *size).

    Args:
        size: of the result in pixels, that of a square or (height, width).
        crop_scale: minimum and maximum fraction of the image area to crop and resize; None crops `size`
            pixels without resizing.
        crop_padding: black padding in pixels before that crop; not with crop_scale.
        rand_augment: number of operations, and their magnitude, 0 … 30 (https://arxiv.org/abs/1909.13719).
    """
    if crop_scale is None:
        steps: list[Transform] = [RandomCrop(size, crop_padding)]
    else:
        steps = [RandomResizedCrop(size, crop_scale)]
    if rand_augment is not None:
        steps.append(RandAugment(*rand_augment))
    return steps


def train_transforms(
    flip: bool = False,
    color_jitter: Sequence[float] | None = None,
    rotation: float = 0.0,
    erasing: float = 0.0,
) -> list[Transform]:
    """Random training transforms for a batch of crops, floats in 0 … 1.

    Args:
        flip: flip half of the views horizontally; only valid if a mirror image keeps its label.
        color_jitter: strength of brightness, contrast, saturation (0 … 1) and hue (0 … 0.5).
        rotation: maximum angle in degrees, in either direction.
        erasing: probability of blackening a rectangle (https://arxiv.org/abs/1708.04896).
    """
    steps: list[Transform] = []
    if flip:
        steps.append(RandomHorizontalFlip())
    if color_jitter is not None:
        steps.append(ColorJitter(*color_jitter))
    if rotation:
        steps.append(RandomRotation(rotation))
    if erasing:
        steps.append(RandomErasing(erasing))
    return steps


class BatchTransform:
    """Transform packed samples into normalised network inputs, float32 (N·V, C, *S).

    Args:
        crops: steps on views of the same shape; evaluation crops return several per view.
        transforms: steps on the whole batch.
        mean, std: per channel, for values in 0 … 1.
        seed: of the random parameters.
    """

    def __init__(
        self,
        crops: Sequence[Transform],
        transforms: Sequence[Transform],
        mean: Sequence[float],
        std: Sequence[float],
        seed: int,
    ) -> None:
        self.crops, self.transforms, self.seed = crops, transforms, seed
        self.numbers: np.ndarray | None = None
        self.mean, self.std = (torch.tensor(values).view(3, 1, 1) for values in (mean, std))

    def by_number(self, numbers: np.ndarray) -> "BatchTransform":
        """The same, with random parameters that follow from an item's number in place of the seed and its index."""
        other = copy(self)
        other.seed, other.numbers = 0, numbers
        return other

    def __call__(self, packed: Packed) -> Tensor:
        keys = self._keys(packed)
        parts = [views.movedim(1, -3) for views in packed.views_of_one_shape()]
        plans, size, done = [], (0, 0), 0
        for views in parts:
            plan, size = _draw(self.crops, keys[done : done + len(views)], (views.shape[-2], views.shape[-1]))
            plans.append(plan)
            done += len(views)
        plan, _ = _draw(self.transforms, keys, size)
        arrays = [array for steps in (*plans, plan) for step in steps for array in step.parameters]
        sent = iter(send(arrays, packed.data.device))
        squares = [_apply(steps, views, sent) for steps, views in zip(plans, parts, strict=True)]
        x = _apply(plan, torch.cat(squares).float().div_(255), sent)
        self.mean, self.std = self.mean.to(x.device), self.std.to(x.device)
        x = x.sub_(self.mean).div_(self.std)
        return x.movedim(-3, 1).contiguous()

    def _keys(self, packed: Packed) -> np.ndarray:
        """One key per view, grouped by sample."""
        epochs, items = np.array(packed.indices, np.int64).T
        items = items if self.numbers is None else self.numbers[items]
        views = np.arange(len(packed.shapes) // len(items))
        return keys_of(self.seed, epochs[:, None], items[:, None], views).ravel()


def _draw(steps: Sequence[Transform], keys: np.ndarray, size: tuple[int, int]) -> tuple[list[Drawn], tuple[int, int]]:
    """Draw the parameters of transforms in sequence; returns the size of the result, too."""
    drawn = []
    for step in steps:
        drawn.append(step.draw(keys, size))
        size = drawn[-1].size
    return drawn, size


def _apply(steps: Sequence[Drawn], x: Tensor, parameters: Iterator[Tensor]) -> Tensor:
    for step in steps:
        x = step.apply(x, *islice(parameters, len(step.parameters)))
    return x


class Mix:
    """MixUp (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899) of a batch.

    Args:
        num_classes: K.
        mixup: parameter of MixUp's Beta distribution; 0 disables it.
        cutmix: the same for CutMix. With both, each batch uses one of them, with equal probability.
        seed: of the random parameters.

    Each sample is mixed with the one before it, the first with the last, each view with one of the other's views; with
    several processes, each mixes its own share.
    """

    def __init__(self, num_classes: int, mixup: float, cutmix: float, seed: int) -> None:
        chosen: list[v2.Transform] = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        chosen += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
        self.transform, self.seed = v2.RandomChoice(chosen), seed

    def __call__(self, indices: Sequence[SampleIndex], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Mix (N·V, C, *S) and (N·V,), the V views of each sample side by side, into inputs of the same shape and class
        weights (N·V, K)."""
        shape, num_samples = inputs.shape, len(indices)
        inputs, labels = (_by_columns(tensor, num_samples) for tensor in (inputs, labels))  # views of one lie apart
        images = inputs.reshape(len(inputs), -1, *shape[-2:])  # frames as channels of an image
        with torch_seeded(int(keys_of(self.seed, *indices[0], Purpose.MIX, _BATCH))):
            mixed, targets = self.transform(images, labels)
        mixed, targets = (_by_columns(tensor, len(inputs) // num_samples) for tensor in (mixed, targets))
        return mixed.reshape(shape), targets


def _by_columns(x: Tensor, num_rows: int) -> Tensor:
    """(rows · columns, …), row after row -> the same, column after column."""
    return x if num_rows in (1, len(x)) else x.unflatten(0, (num_rows, -1)).transpose(0, 1).flatten(0, 1)
