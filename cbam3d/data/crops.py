"""Crops of uint8 views of the same shape.

Each class maps views, frames first, (N, …, 3, H, W), and their keys, uint64 (N,), to (N, …, 3, *size); those
of evaluation take K crops of each view, consecutive in the batch. A size is that of a square, or (height, width).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from cbam3d.data.rng import Purpose, keys_of, torch_seeded, uniforms
from cbam3d.errors import InputError

Size = int | tuple[int, int]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def check_room(x: Tensor, size: Size) -> None:
    """Raise InputError if images (…, H, W) are smaller than a crop of `size` pixels."""
    height, width = x.shape[-2:]
    if height < sides(size)[0] or width < sides(size)[1]:
        pixels = size if isinstance(size, int) else "x".join(map(str, size))
        raise InputError(f"a crop of {pixels} pixels is larger than the image of {height}x{width}")


class RandomCrop:
    """Random crop, without resizing.

    Args:
        size: of the crop in pixels.
        padding: black padding in pixels before cropping.
    """

    def __init__(self, size: Size, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        planes = F.pad(x, [self.padding] * 4).flatten(1, -3)
        check_room(planes, self.size)
        height, width = sides(self.size)
        room = np.array(planes.shape[-2:]) - (height, width) + 1
        top, left = torch.from_numpy(np.floor(uniforms(keys, 2, Purpose.CROP) * room).astype(np.int64)).to(x.device).T
        windows = planes.unfold(2, height, 1).unfold(3, width, 1)  # every possible crop, without copying
        cut = windows[torch.arange(len(x), device=x.device), :, top, left]
        return cut.reshape(*x.shape[:-2], height, width)


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
    """Centre crop, or evenly spaced crops along the side with more room, each optionally followed by its mirror image.

    Args:
        size: of the crops in pixels, at most that of the views.
        num_crops: 1 for the centre, or more.
        flip: also take the mirror image of each crop.
    """

    __test__ = False  # not a test class for pytest

    def __init__(self, size: Size, num_crops: int = 1, flip: bool = False) -> None:
        self.size, self.num_crops, self.flip = size, num_crops, flip

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        check_room(x, self.size)
        height, width = sides(self.size)
        down, right = x.shape[-2] - height, x.shape[-1] - width
        places = [0.5] if self.num_crops == 1 else [i / (self.num_crops - 1) for i in range(self.num_crops)]
        crops: list[Tensor] = []
        for place in places:
            top = round((0.5 if right >= down else place) * down)
            left = round((place if right >= down else 0.5) * right)
            crop = x[..., top : top + height, left : left + width]
            crops += [crop, crop.flip(-1)] if self.flip else [crop]
        return torch.stack(crops, 1).flatten(0, 1)
