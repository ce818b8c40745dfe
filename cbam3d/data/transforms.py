"""Batched random transforms with separate parameters for each sample.

Each class maps float images in 0 … 1, (N, …, 3, H, W), and the samples' keys, uint64 (N,), to images of the same
shape; axes between N and the channels (a clip's frames) share parameters. The distributions are those of torchvision's
transforms of the same names, whose results are reproduced up to rounding for equal parameters.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.data.parameters import Drawn, Transform
from cbam3d.data.rng import Purpose, uniforms


class RandomHorizontalFlip(Transform):
    """Flip half of the samples."""

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        flipped = (uniforms(keys, 1, Purpose.FLIP)[:, 0] < 0.5).astype(np.int64)
        return Drawn([flipped], lambda x, flipped: torch.where(_like(flipped.bool(), x), x.flip(-1), x), size)


class ColorJitter(Transform):
    """Brightness, contrast, saturation and hue, in a random order.

    Args:
        brightness, contrast, saturation: the factor is drawn from 1 ± this (0 … 1).
        hue: the shift is drawn from ± this (0 … 0.5), in turns of the colour wheel.
    """

    def __init__(self, brightness: float, contrast: float, saturation: float, hue: float) -> None:
        self.strengths = np.array([brightness, contrast, saturation, hue])
        self.centres = np.array([1.0, 1.0, 1.0, 0.0])

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        numbers = uniforms(keys, 8, Purpose.COLOR)
        amounts = self.centres + self.strengths * (2 * numbers[:, :4] - 1)
        order = numbers[:, 4:].argsort(axis=1)
        changes = (adjust_brightness, adjust_contrast, adjust_saturation, adjust_hue)
        steps: list[Callable[[Tensor, Tensor], Tensor]] = []
        parameters: list[np.ndarray] = []
        for place in order.T:  # samples with the same change at the same place take it together
            for number, change in enumerate(changes):
                chosen = np.flatnonzero(place == number)
                if self.strengths[number] and len(chosen):
                    steps.append(change)
                    parameters += [chosen, amounts[chosen, number]]

        def apply(x: Tensor, *drawn: Tensor) -> Tensor:
            x = x.clone()
            for change, chosen, amount in zip(steps, drawn[::2], drawn[1::2], strict=True):
                x[chosen] = change(x[chosen], _like(amount.to(x.dtype), x))
            return x

        return Drawn(parameters, apply, size)


class RandomRotation(Transform):
    """Rotate images about the centre; nearest-neighbour, black corners.

    Args:
        degrees: the angle is drawn from ± this.
    """

    def __init__(self, degrees: float) -> None:
        self.degrees = degrees

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        angles = np.radians(self.degrees * (2 * uniforms(keys, 1, Purpose.ROTATION)[:, 0] - 1))
        return Drawn([rotations(angles, size)], warp, size)


class RandomErasing(Transform):
    """Blacken a rectangle (https://arxiv.org/abs/1708.04896) of 2 to 33 % of the area, aspect ratio 0.3 to 3.3.

    Args:
        probability: of erasing, per sample.
    """

    tries = 10  # rectangles drawn before a sample is left unchanged

    def __init__(self, probability: float) -> None:
        self.probability = probability

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        height, width = size
        numbers = uniforms(keys, 3 + 2 * self.tries, Purpose.ERASING)
        chance, down, right = numbers[:, :3].T
        areas, shapes = numbers[:, 3 : 3 + self.tries], numbers[:, 3 + self.tries :]
        area = height * width * (0.02 + 0.31 * areas)
        aspect = np.exp(math.log(0.3) + (math.log(3.3) - math.log(0.3)) * shapes)
        heights, widths = np.round(np.sqrt(area * aspect)), np.round(np.sqrt(area / aspect))
        fits = (heights < height) & (widths < width)
        first = fits.argmax(axis=1)[:, None]
        h, w = (np.take_along_axis(sides, first, 1)[:, 0] for sides in (heights, widths))
        top, left = np.floor(down * (height - h + 1)), np.floor(right * (width - w + 1))
        erased = (chance < self.probability) & fits.any(axis=1)
        bounds = np.stack([top, top + h * erased, left, left + w], 1)  # no rows where nothing is erased

        def apply(x: Tensor, bounds: Tensor) -> Tensor:
            first_row, last_row, first_column, last_column = bounds.T[:, :, None]
            rows, columns = torch.arange(height, device=x.device), torch.arange(width, device=x.device)
            black = ((rows >= first_row) & (rows < last_row))[:, :, None]
            black = black & ((columns >= first_column) & (columns < last_column))[:, None, :]
            return x.masked_fill(black.reshape(len(x), *(1,) * (x.ndim - 3), height, width), 0.0)

        return Drawn([bounds], apply, size)


def adjust_brightness(x: Tensor, factor: Tensor) -> Tensor:
    """x·factor, clamped to 0 … 1."""
    return (x * factor).clamp_(0, 1)


def adjust_contrast(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from the image's mean grey."""
    return _blend(x, _gray(x).mean((-2, -1), keepdim=True), factor)


def adjust_saturation(x: Tensor, factor: Tensor) -> Tensor:
    """Scale the distance from each pixel's grey."""
    return _blend(x, _gray(x), factor)


def adjust_hue(x: Tensor, shift: Tensor) -> Tensor:
    """Shift the hue, in turns; value and saturation (HSV) are unchanged."""
    value, brightest = x.max(-3, keepdim=True)
    chroma = value - x.amin(-3, keepdim=True)
    red, green, blue = x.unsqueeze(-4).unbind(-3)
    red, green, blue = (colour.reshape(value.shape) for colour in (red, green, blue))
    # the sextant of the colour wheel centred on the brightest channel, and the position in it
    difference = torch.where(brightest == 0, green - blue, torch.where(brightest == 1, blue - red, red - green))
    sextants = 2.0 * brightest + difference / chroma.clamp_min(torch.finfo(x.dtype).tiny)
    sextants = sextants + 6 * shift
    offsets = torch.arange(5, 0, -2, dtype=x.dtype, device=x.device).view(3, 1, 1)
    place = (offsets + sextants) % 6
    return value - chroma * torch.minimum(place, 4 - place).clamp_(0, 1)


def rotations(angles: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Matrices of `warp` that rotate images of a size anticlockwise, (N,) in radians -> (N, 2, 3)."""
    cos, sin = np.cos(angles), np.sin(angles)
    zero = np.zeros_like(cos)
    return relative(np.array([[cos, -sin, zero], [sin, cos, zero]]).transpose(2, 0, 1), size)


def relative(matrices: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Matrices of positions (x, y, 1) in pixels from the centre, (N, 2, 3) -> of positions from -1 to 1."""
    half = np.array([size[1] / 2, size[0] / 2, 1])
    return matrices * half / half[:2, None]


def warp(x: Tensor, matrices: Tensor) -> Tensor:
    """Sample images (N, …, H, W) at the positions that the matrices of `affine_grid`, (N, 2, 3), name; nearest
    neighbour, black outside."""
    planes = x.flatten(1, -3)
    grid = F.affine_grid(matrices.to(x.dtype), list(planes.shape), align_corners=False)
    return F.grid_sample(planes, grid, mode="nearest", align_corners=False).reshape(x.shape)


def _gray(x: Tensor) -> Tensor:
    """Luma of ITU-R 601, (…, 3, H, W) -> (…, 1, H, W)."""
    return (x * _luma(x.device, x.dtype)).sum(-3, keepdim=True)


@cache
def _luma(device: torch.device, dtype: torch.dtype) -> Tensor:
    return torch.tensor([0.2989, 0.587, 0.114], dtype=dtype, device=device).view(3, 1, 1)


def _blend(x: Tensor, other: Tensor, factor: Tensor) -> Tensor:
    return (factor * x + (1 - factor) * other).clamp_(0, 1)


def _like(values: Tensor, x: Tensor) -> Tensor:
    """(N,) -> (N, 1, …), with the rank of x."""
    return values.reshape(-1, *(1,) * (x.ndim - 1))
