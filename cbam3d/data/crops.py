"""Square crops of uint8 views of the same shape.

Each class maps views, frames first, (N, …, 3, H, W), and their keys, uint64 (N,), to (N, …, 3, size, size); those
of evaluation take K crops of each view, consecutive in the batch.
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from cbam3d.data.rng import Purpose, keys_of, torch_seeded, uniforms
from cbam3d.errors import InputError


def check_room(x: Tensor, size: int) -> None:
    """Raise InputError if images (…, H, W) are smaller than a crop of `size` pixels."""
    height, width = x.shape[-2:]
    if min(height, width) < size:
        raise InputError(f"a crop of {size} pixels is larger than the image of {height}x{width}")


class RandomCrop:
    """Random square crop, without resizing.

    Args:
        size: height and width of the crop in pixels.
        padding: black padding in pixels before cropping.
    """

    def __init__(self, size: int, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        planes = F.pad(x, [self.padding] * 4).flatten(1, -3)
        check_room(planes, self.size)
        room = np.array(planes.shape[-2:]) - self.size + 1
        top, left = torch.from_numpy(np.floor(uniforms(keys, 2, Purpose.CROP) * room).astype(np.int64)).to(x.device).T
        windows = planes.unfold(2, self.size, 1).unfold(3, self.size, 1)  # every possible crop, without copying
        cut = windows[torch.arange(len(x), device=x.device), :, top, left]
        return cut.reshape(*x.shape[:-2], self.size, self.size)


class PerView:
    """Apply a torchvision transform to each view separately, with its own random parameters.

    Args:
        transform: applied to each view.
        purpose: of its random numbers; two transforms with the same purpose would draw the same numbers.
    """

    def __init__(self, transform: v2.Transform, purpose: Purpose) -> None:
        self.transform, self.purpose = transform, purpose

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        changed = []
        for view, key in zip(x, keys_of(keys, self.purpose), strict=True):
            with torch_seeded(int(key)):
                changed.append(self.transform(view))
        return torch.stack(changed)


class TestCrops:
    """Centre crop, or evenly spaced crops along the longer side, each optionally followed by its mirror image.

    Args:
        size: height and width of the crops in pixels, at most the shorter side.
        num_crops: 1 for the centre, or more.
        flip: also take the mirror image of each crop.
    """

    __test__ = False  # not a test class for pytest

    def __init__(self, size: int, num_crops: int = 1, flip: bool = False) -> None:
        self.size, self.num_crops, self.flip = size, num_crops, flip

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        height, width = x.shape[-2:]
        check_room(x, self.size)
        places = [0.5] if self.num_crops == 1 else [i / (self.num_crops - 1) for i in range(self.num_crops)]
        wide = width >= height
        squares: list[Tensor] = []
        for place in places:
            top = round((0.5 if wide else place) * (height - self.size))
            left = round((place if wide else 0.5) * (width - self.size))
            square = x[..., top : top + self.size, left : left + self.size]
            squares += [square, square.flip(-1)] if self.flip else [square]
        return torch.stack(squares, 1).flatten(0, 1)
