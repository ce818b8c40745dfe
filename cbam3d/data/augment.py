"""Transforms of clips and images: uint8 views of any size -> one float batch, on the device.

Every transform is torchvision's. One set of random parameters holds for all frames of a clip, and follows
from (seed, epoch, item, view) alone, whatever the batch, the worker or the process.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2

from cbam3d.data.batch import Packed, Visit


def train_transform(
    size: int,
    crop_scale: tuple[float, float] | None = None,
    crop_padding: int = 0,
    flip: bool = False,
    color_jitter: Sequence[float] | None = None,
    rand_augment: tuple[int, int] | None = None,
    erasing: float = 0.0,
) -> v2.Transform:
    """The random transform of one view, (…, 3, H, W) uint8 -> (…, 3, size, size) uint8.

    Args:
        size: pixels, height and width of the result.
        crop_scale: share of the picture's area that is cut out and resized (least, most); None cuts out
            `size` pixels without resizing.
        crop_padding: pixels of black around the picture before that cut; not with crop_scale.
        flip: mirror half of the views. Right only where a mirror image keeps its label.
        color_jitter: strength of brightness, contrast, saturation (0 … 1) and hue (0 … 0.5).
        rand_augment: number of operations, and their magnitude of 0 … 30 (https://arxiv.org/abs/1909.13719).
        erasing: probability that a rectangle is blackened (https://arxiv.org/abs/1708.04896).
    """
    if crop_scale is None:
        crop: v2.Transform = v2.RandomCrop(size, padding=crop_padding or None, pad_if_needed=True)
    else:
        crop = v2.RandomResizedCrop(size, scale=crop_scale, antialias=True)
    steps: list[v2.Transform] = [crop]
    if flip:
        steps.append(v2.RandomHorizontalFlip())
    if color_jitter is not None:
        steps.append(v2.ColorJitter(*color_jitter))
    if rand_augment is not None:
        steps.append(v2.RandAugment(*rand_augment))
    if erasing:
        steps.append(v2.RandomErasing(erasing))
    return v2.Compose(steps)


def crops(view: Tensor, size: int, num_crops: int) -> list[Tensor]:
    """Squares of `size` pixels of one view: its centre, or `num_crops` evenly spread along its longer side."""
    height, width = view.shape[-2:]
    places = [0.5] if num_crops == 1 else [i / (num_crops - 1) for i in range(num_crops)]
    wide = width >= height
    corners = [
        (round((0.5 if wide else place) * (height - size)), round((place if wide else 0.5) * (width - size)))
        for place in places
    ]
    return [view[..., top : top + size, left : left + size] for top, left in corners]


class Mix:
    """MixUp (https://arxiv.org/abs/1710.09412) and CutMix (https://arxiv.org/abs/1905.04899) of a batch.

    Args:
        num_classes: K.
        mixup: parameter of the Beta distribution of MixUp; 0 turns it off.
        cutmix: the same of CutMix. With both, each batch has one of them, by equal chance.
        seed: of the random parameters.

    A batch is mixed with itself, moved on by one; with several processes each mixes its own share.
    """

    def __init__(self, num_classes: int, mixup: float, cutmix: float, seed: int) -> None:
        chosen: list[v2.Transform] = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        chosen += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
        self.transform, self.seed = v2.RandomChoice(chosen), seed

    def __call__(self, visits: Sequence[Visit], inputs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """(N, C, *S) and (N,) -> the same and (N, K): how much of each class a sample holds."""
        with _seeded(self.seed, _MIX, *visits[0]):
            kind = tv_tensors.Video if inputs.ndim == 5 else tv_tensors.Image  # what tells torchvision the rank
            mixed, targets = self.transform(kind(inputs), labels)
        return mixed.as_subclass(Tensor), targets


_MIX = 2**32 - 1  # tells the batch's parameters from those of its first sample


@contextmanager
def _seeded(*words: int) -> Iterator[None]:
    """Within, torchvision's random parameters follow from these numbers."""
    with torch.random.fork_rng(devices=[]):  # it draws from the global generator of the CPU
        state = np.random.SeedSequence(words).generate_state(2)
        torch.default_generator.manual_seed(int(state[0]) << 32 | int(state[1]))
        yield


class BatchTransform:
    """Packed samples -> the network's input, float32 (N·V, C, *S), normalised.

    Args:
        transform: one view, frames first, (T, 3, H, W) or (3, H, W) -> the views made of it.
        mean, std: of the three channels, in units of the full range.
        seed: of the random parameters.
    """

    def __init__(
        self, transform: Callable[[Tensor], Sequence[Tensor]], mean: Sequence[float], std: Sequence[float], seed: int
    ) -> None:
        self.transform, self.seed = transform, seed
        self.to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])

    def __call__(self, packed: Packed) -> Tensor:
        views = packed.views()
        per_sample = len(views) // max(1, len(packed.visits))
        transformed: list[Tensor] = []
        for i, view in enumerate(views):
            with _seeded(self.seed, *packed.visits[i // per_sample], i % per_sample):
                transformed += self.transform(view.movedim(0, -3))
        return self.to_float(torch.stack(transformed)).movedim(-3, 1).contiguous()
