"""Transforms of clips and images: uint8 views of any size -> one float batch, on the device.

Every transform is torchvision's. One set of random parameters holds for all frames of a clip, and follows
from (seed, epoch, item, view) alone, whatever the batch, the worker or the process.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import v2

from cbam3d.data.batch import Packed


def train_transform(
    size: int,
    crop_scale: tuple[float, float] | None = None,
    crop_padding: int = 0,
    flip: bool = False,
    color_jitter: Sequence[float] | None = None,
) -> v2.Transform:
    """The random transform of one view, (…, 3, H, W) uint8 -> (…, 3, size, size) uint8.

    Args:
        size: pixels, height and width of the result.
        crop_scale: share of the picture's area that is cut out and resized (least, most); None cuts out
            `size` pixels without resizing.
        crop_padding: pixels of black around the picture before that cut; not with crop_scale.
        flip: mirror half of the views. Right only where a mirror image keeps its label.
        color_jitter: strength of brightness, contrast, saturation (0 … 1) and hue (0 … 0.5).
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
    return v2.Compose(steps)


def eval_transform(size: int) -> v2.Transform:
    """The centre of one view, `size` pixels high and wide."""
    return v2.CenterCrop(size)


class BatchTransform:
    """Packed samples -> the network's input, float32 (N, C, *S), normalised.

    Args:
        transform: of one view, frames first: (T, 3, H, W) or (3, H, W).
        mean, std: of the three channels, in units of the full range.
        seed: of the random parameters.
    """

    def __init__(
        self, transform: Callable[[Tensor], Tensor], mean: Sequence[float], std: Sequence[float], seed: int
    ) -> None:
        self.transform, self.seed = transform, seed
        self.to_float = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize(list(mean), list(std))])

    def __call__(self, packed: Packed) -> Tensor:
        views = packed.views()
        per_sample = len(views) // max(1, len(packed.visits))
        with torch.random.fork_rng(devices=[]):  # torchvision draws from the global generator of the CPU
            transformed = []
            for i, view in enumerate(views):
                visit = packed.visits[i // per_sample]
                words = np.random.SeedSequence([self.seed, *visit, i % per_sample]).generate_state(2)
                torch.default_generator.manual_seed(int(words[0]) << 32 | int(words[1]))
                transformed.append(self.transform(view.movedim(0, -3)))
        return self.to_float(torch.stack(transformed)).movedim(-3, 1).contiguous()
