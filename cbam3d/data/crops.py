"""Crops of uint8 views of the same shape.

Each class maps views, frames first, (N, …, 3, H, W), to (N, …, 3, *size); those of evaluation take K crops of each
view, consecutive in the batch. A size is that of a square, or (height, width).
"""

from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from cbam3d.data.parameters import Drawn, Transform
from cbam3d.data.rng import Purpose, uniforms
from cbam3d.errors import InputError

Size = int | tuple[int, int]
# Values of a view below which a CPU resizes a batch at once, too: on 2 cores 256 images of 32x32 take 2.5 ms so, 25 one
# by one, and 16 clips of 8x128x171 take 40 and 13.
_SMALL = 2**14


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


class RandomResizedCrop(Transform):
    """Random crop of a random area and aspect ratio, resized with bilinear interpolation and antialiasing; the
    distribution is that of torchvision's transform of this name.

    Args:
        size: of the result in pixels.
        scale: minimum and maximum fraction of the view's area.
        ratio: minimum and maximum width of the crop by its height, relative to those of the result.
    """

    tries = 10  # crops drawn before the largest one in the centre is taken

    def __init__(self, size: Size, scale: tuple[float, float], ratio: tuple[float, float] = (3 / 4, 4 / 3)) -> None:
        self.size, self.scale, self.ratio = size, scale, ratio

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        boxes = self.boxes(keys, size)

        def apply(x: Tensor, sent: Tensor) -> Tensor:
            if x.is_cuda or x[0].numel() < _SMALL:
                return _resized_crops(x, sent, sides(self.size))
            resize = partial(tv.resized_crop, size=list(sides(self.size)), antialias=True)
            return torch.stack([resize(view, *box) for view, box in zip(x, boxes.tolist(), strict=True)])

        return Drawn([boxes], apply, sides(self.size))

    def boxes(self, keys: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """Top, left, height and width of the crops of views of a size, int64 (N, 4)."""
        height, width = size
        proportions = sides(self.size)[1] / sides(self.size)[0]
        numbers = uniforms(keys, 2 + 2 * self.tries, Purpose.RESIZED_CROP)
        areas, shapes = numbers[:, 2 : 2 + self.tries], numbers[:, 2 + self.tries :]
        area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * areas)
        low, high = np.log(self.ratio)
        aspect = proportions * np.exp(low + (high - low) * shapes)
        heights, widths = np.round(np.sqrt(area / aspect)), np.round(np.sqrt(area * aspect))
        fits = (heights > 0) & (heights <= height) & (widths > 0) & (widths <= width)
        first = fits.argmax(axis=1)[:, None]
        h, w = (np.take_along_axis(values, first, 1)[:, 0] for values in (heights, widths))
        top, left = np.floor(numbers[:, 0] * (height - h + 1)), np.floor(numbers[:, 1] * (width - w + 1))
        narrow, wide = (proportions * bound for bound in self.ratio)
        most = round(min(height, width / narrow)), round(min(width, height * wide))
        centre = ((height - most[0]) // 2, (width - most[1]) // 2, *most)
        boxes = np.stack([top, left, h, w], 1)
        return np.where(fits.any(axis=1)[:, None], boxes, centre).astype(np.int64)


def _resized_crops(x: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Crop and resize all views at once, by a matrix product along each axis."""
    planes = x.flatten(1, -3)
    top, left, height, width = boxes.float().T
    rows = _resizing(top, height, x.shape[-2], size[0])[:, None]
    columns = _resizing(left, width, x.shape[-1], size[1])
    narrow = (planes.flatten(1, 2).float() @ columns.mT).unflatten(1, planes.shape[1:3])
    resized = rows @ narrow
    return resized.round_().clamp_(0, 255).to(x.dtype).reshape(*x.shape[:-2], *size)


def _resizing(start: Tensor, length: Tensor, given: int, wanted: int) -> Tensor:
    """Weights of the pixels of an axis, (N, wanted, given), where `length` pixels from `start` on are resized."""
    places, start, length = torch.arange(given, device=start.device) + 0.5, start[:, None, None], length[:, None, None]
    factor = length / wanted
    centres = start + (torch.arange(wanted, device=start.device)[:, None] + 0.5) * factor
    weights = (1 - (places - centres).abs() / factor.clamp_min(1)).clamp_min(0)
    weights = weights * ((places > start) & (places < start + length))
    return weights / weights.sum(-1, keepdim=True)


class EvalCrops(Transform):
    """Centre crop, or evenly spaced crops along the side with more room, each optionally followed by its mirror image.

    Args:
        size: of the crops in pixels, at most that of the views.
        num_crops: 1 for the centre, or more.
        flip: also take the mirror image of each crop.
    """

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
