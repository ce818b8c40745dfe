"""Random parameters of transforms: drawn on the host for a whole batch, and sent to the device in one copy."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Drawn(NamedTuple):
    """A transform whose parameters have been drawn."""

    parameters: list[np.ndarray]  # float64 or int64
    apply: Callable[..., Tensor]  # images and the parameters on their device -> images
    size: tuple[int, int]  # height and width of the result


class Transform:
    """A transform of images (N, …, 3, H, W), with separate random parameters for each; a subclass defines `draw`."""

    def draw(self, keys: np.ndarray, size: tuple[int, int]) -> Drawn:
        """Draw the parameters of images of a size, (height, width), from their keys, uint64 (N,)."""
        raise NotImplementedError

    def __call__(self, x: Tensor, keys: np.ndarray) -> Tensor:
        """Transform images, given their keys."""
        height, width = x.shape[-2:]
        drawn = self.draw(keys, (height, width))
        return drawn.apply(x, *send(drawn.parameters, x.device))


def send(arrays: Sequence[np.ndarray], device: torch.device) -> list[Tensor]:
    """Arrays of float64 or int64 as tensors on a device; floats as float32 on others than CPUs and CUDA's."""
    if device.type == "cpu" or not arrays:
        return [torch.from_numpy(array) for array in arrays]
    if device.type != "cuda":
        singles = [array.astype(np.float32) if array.dtype == np.float64 else array for array in arrays]
        return [torch.from_numpy(array).to(device) for array in singles]
    whole = torch.from_numpy(np.concatenate([array.ravel().view(np.int64) for array in arrays])).pin_memory()
    parts = whole.to(device, non_blocking=True).split([array.size for array in arrays])
    return [
        (part if array.dtype == np.int64 else part.view(torch.float64)).view(array.shape)
        for part, array in zip(parts, arrays, strict=True)
    ]
