"""Crops of uint8 views of the same shape.

Each class maps views, frames first, (N, …, 3, H, W), to (N, …, 3, *size); those of evaluation take K crops of each
view, consecutive in the batch. A size is that of a square, or (height, width).
"""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms import v2

from cbam3d.data.draw import Drawn, Transform
from cbam3d.data.rng import Purpose, keys_of, torch_seeded, uniforms
from cbam3d.errors import InputError

Size = int | tuple[int, int]


def sides(size: Size) -> tuple[int, int]:
    """Height and width."""
    return (size, size) if isinstance(size, int) else size


def check_room(given: tuple[int, int], size: Size) -> None:
    """Raise InputError if images of a given height and width are smaller than a crop of `size` pixels."""
    height, width = given
    if height < sides(size)[0] or width < sides(size)[1]:
        pixels = size if isinstance(size, int) else "x".join(map(str, size))
        raise InputError(f"a crop of {pixels} pixels is larger than the image of {height}x{width}")


class RandomCrop(Transform):
    """Random crop, without resizing.

    Args:
        size: of the crop in pixels.
        padding: black padding in pixels before cropping.
    """

    def __init__(self, size: Size, padding: int = 0) -> None:
        self.size, self.padding = size, padding

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        padded = size[0] + 2 * self.padding, size[1] + 2 * self.padding
        check_room(padded, self.size)
        height, width = sides(self.size)
        room = np.array(padded) - (height, width) + 1
        corners = np.floor(uniforms(keys, 2, Purpose.CROP) * room).astype(np.int64)

        def apply(x: Tensor, corners: Tensor) -> Tensor:
            planes = F.pad(x, [self.padding] * 4).flatten(1, -3)
            windows = planes.unfold(2, height, 1).unfold(3, width, 1)  # every possible crop, without copying
            cut = windows[torch.arange(len(x), device=x.device), :, corners[:, 0], corners[:, 1]]
            return cut.reshape(*x.shape[:-2], height, width)

        return Drawn([corners], apply, (height, width))


class PerView(Transform):
    """Apply a torchvision transform to each view separately, with its own random parameters.

    Args:
        transform: applied to each view.
        purpose: of its random numbers; two transforms with the same purpose would draw the same numbers.
        size: of the result in pixels; None for that of the views.
    """

    def __init__(self, transform: v2.Transform, purpose: Purpose, size: Size | None = None) -> None:
        self.transform, self.purpose, self.size = transform, purpose, size

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        def apply(x: Tensor) -> Tensor:
            changed = []
            for view, key in zip(x, keys_of(keys, self.purpose), strict=True):
                with torch_seeded(int(key)):
                    changed.append(self.transform(view))
            return torch.stack(changed)

        return Drawn([], apply, size if self.size is None else sides(self.size))


class TestCrops(Transform):
    """Centre crop, or evenly spaced crops along the side with more room, each optionally followed by its mirror image.

    Args:
        size: of the crops in pixels, at most that of the views.
        num_crops: 1 for the centre, or more.
        flip: also take the mirror image of each crop.
    """

    __test__ = False  # not a test class for pytest

    def __init__(self, size: Size, num_crops: int = 1, flip: bool = False) -> None:
        self.size, self.num_crops, self.flip = size, num_crops, flip

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        check_room(size, self.size)
        return Drawn([], self._cut, sides(self.size))

    def _cut(self, x: Tensor) -> Tensor:
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
