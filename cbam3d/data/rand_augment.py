"""RandAugment (https://arxiv.org/abs/1909.13719) of a batch.

The operations are those of torchvision's transform of this name, each on all views that drew it; where torchvision's
copies constants to the device, it is written here.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision.transforms.v2 import functional as tv

from cbam3d.data.parameters import Drawn, Transform
from cbam3d.data.rng import Purpose, uniforms
from cbam3d.data.transforms import relative, warp

_NUM_MOVES = 5


class RandAugment(Transform):
    """Random operations in sequence, for uint8 views.

    Args:
        num_ops: operations a view.
        magnitude: of the operations, 0 … 30.
    """

    def __init__(self, num_ops: int, magnitude: int) -> None:
        self.num_ops, self.strength = num_ops, magnitude / 30
        factor, strength = 0.9 * self.strength, self.strength
        self.changes: list[Callable[[Tensor, int], Tensor]] = [  # of views, upwards (1) or downwards (-1)
            lambda x, sign: tv.adjust_brightness(x, 1 + sign * factor),
            lambda x, sign: tv.adjust_saturation(x, 1 + sign * factor),
            lambda x, sign: tv.adjust_contrast(x, 1 + sign * factor),
            lambda x, sign: adjust_sharpness(x, 1 + sign * factor),
            lambda x, _: tv.posterize(x, round(8 - 4 * strength)),
            lambda x, _: tv.solarize(x, 255 * (1 - strength)),
            lambda x, _: tv.autocontrast(x),
            lambda x, _: tv.equalize(x),
            lambda x, _: x,
        ]

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        numbers = uniforms(keys, 2 * self.num_ops, Purpose.RAND_AUGMENT)
        operations = np.floor(numbers[:, : self.num_ops] * (_NUM_MOVES + len(self.changes))).astype(np.int64)
        signs = np.where(numbers[:, self.num_ops :] < 0.5, -1, 1)
        moves = np.array([self.moves(sign, size) for sign in (-1, 1)])
        steps: list[Callable[..., Tensor]] = []
        parameters: list[list[np.ndarray]] = []
        for operation, sign in zip(operations.T, signs.T, strict=True):
            if len(moved := np.flatnonzero(operation < _NUM_MOVES)):
                steps.append(lambda x, matrices: warp(x.float(), matrices).to(x.dtype))
                parameters.append([moved, relative(moves[(sign[moved] > 0).astype(int), operation[moved]], size)])
            for number, change in enumerate(self.changes, _NUM_MOVES):
                for way in (-1, 1):
                    if len(chosen := np.flatnonzero((operation == number) & (sign == way))):
                        steps.append(lambda x, change=change, way=way: change(x, way))
                        parameters.append([chosen])

        def apply(x: Tensor, *drawn: Tensor) -> Tensor:
            x, sent = x.clone(), iter(drawn)
            for change, own in zip(steps, parameters, strict=True):
                chosen, *others = (next(sent) for _ in own)
                x[chosen] = change(x[chosen], *others)
            return x

        return Drawn([array for own in parameters for array in own], apply, size)

    def moves(self, sign: int, size: tuple[int, int]) -> np.ndarray:
        """What shears and translations along x and y, and a rotation, do to a position (x, y) from the centre, in
        pixels: matrices from the result to the image, (5, 2, 3)."""
        height, width = size
        shear, angle = sign * 0.3 * self.strength, np.radians(sign * 30 * self.strength)
        right, down = (int(sign * 150 / 331 * side * self.strength) for side in (width, height))
        cos, sin = np.cos(angle), np.sin(angle)
        return np.array(
            [
                [[1, shear, shear * height / 2], [0, 1, 0]],  # the first row stays where it is
                [[1, 0, 0], [shear, 1, shear * width / 2]],
                [[1, 0, -right], [0, 1, 0]],
                [[1, 0, 0], [0, 1, -down]],
                [[cos, -sin, 0], [sin, cos, 0]],
            ]
        )


def adjust_sharpness(x: Tensor, factor: float) -> Tensor:
    """Scale the distance of uint8 images from their smoothed ones: of 13 parts, 5 of the pixel and 1 of each neighbour.
    Pixels at the edges stay."""
    if min(x.shape[-2:]) <= 2:
        return x
    planes = x.flatten(0, -3).float()
    inner = planes[..., 1:-1, 1:-1]
    smooth = ((9 * F.avg_pool2d(planes, 3, 1) + 4 * inner) / 13).round_()
    planes[..., 1:-1, 1:-1] = factor * inner + (1 - factor) * smooth
    return planes.clamp_(0, 255).to(torch.uint8).view_as(x)
