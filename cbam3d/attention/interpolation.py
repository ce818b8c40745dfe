"""Features between positions."""

import torch
from torch import Tensor
from torch.nn import functional as F

from cbam3d.attention.nd import at_least_float32


def sample(x: Tensor, places: Tensor) -> Tensor:
    """Features at places, interpolated linearly along every axis, 0 beyond the edges.

    Args:
        x: (N, C, *S), of an image or a clip.
        places: (N, *S', axes), in positions of x, from 0 to its size - 1; in the order of its axes.

    Returns: (N, C, *S').
    """
    along = zip(places.unbind(-1), x.shape[2:], strict=True)
    grid = torch.stack([(2 * place + 1) / size - 1 for place, size in along], -1)  # -1 to 1 between the outer edges
    wide = at_least_float32(x)
    return F.grid_sample(wide, grid.flip(-1).to(wide.dtype), align_corners=False).to(x.dtype)
