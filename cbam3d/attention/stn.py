"""STN: spatial transformer.

Jaderberg, Simonyan, Zisserman, Kavukcuoglu, NeurIPS 2015, https://arxiv.org/abs/1506.02025

    θ = localisation(x);   y(p) = x(θ p), linearly interpolated;   coordinates from -1 to 1 along every axis
"""

from contextlib import nullcontext
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Init, check_init, hidden_channels, one_of, zero_
from cbam3d.attention.nd import CONV, at_least_float32, check_ndim, check_rank, pool_to_grid

Over = Literal["frame", "clip", "volume"]
_GRID = 4  # positions along H and W, and T of a volume, that the localisation network sees


class STN(nn.Module):
    """Spatial transformer: features are moved, scaled, rotated and sheared by a map that they determine.

    Args:
        channels: number of input channels C.
        over: of clips: "frame", an affine map of H and W for every frame; "clip", one for all frames; or "volume", an
            affine map of T, H and W. Of images these are the same.
        reduction: the localisation network has `max(1, channels // reduction)` channels.
        ndim: 2 for images, 3 for clips.
        init: "paper" or "identity", which are the same: θ starts as the identity.

    Shapes: (N, C, *S) -> the same.

    The paper leaves the localisation network open: here a convolution, average pooling to 4 positions along each axis
    that the map has, and a linear layer. What the sampler itself changes, θ being the identity, is rounding; it is
    taken away, so that the start is exact. Beyond the edges features are 0.

    Raises:
        ValueError: an unknown `over`.

    Examples:
        >>> from cbam3d.attention import STN
        >>> x = torch.randn(2, 64, 4, 14, 14)
        >>> torch.allclose(STN(64, over="clip")(x), x, atol=1e-5)  # as in the paper
        True
    """

    def __init__(
        self, channels: int, over: Over = "frame", reduction: int = 8, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__()
        check_init(init)
        self.ndim, self.over = check_ndim(ndim), one_of("over", over, "frame", "clip", "volume")
        hidden = hidden_channels(channels, reduction)
        self.axes = 3 if (over, ndim) == ("volume", 3) else 2
        self.reduce = nn.Sequential(CONV[ndim](channels, hidden, 1), nn.ReLU())
        self.locate = nn.Linear(hidden * _GRID**self.axes, self.axes * (self.axes + 1))
        zero_(self.locate)

    def theta(self, x: Tensor) -> Tensor:
        """The affine maps from output to input coordinates, x first: (N, T or 1, axes, axes + 1)."""
        reduced = self.reduce(x)
        if self.ndim == 2:
            reduced = reduced[:, :, None]
        frames = {"frame": reduced.shape[2], "clip": 1, "volume": _GRID}[self.over if self.ndim == 3 else "frame"]
        pooled = pool_to_grid(reduced, (frames, _GRID, _GRID))
        pooled = pooled.flatten(1)[:, None] if self.axes == 3 else pooled.transpose(1, 2).flatten(2)
        change = self.locate(pooled).unflatten(2, (self.axes, self.axes + 1))
        change = at_least_float32(change)  # 1 + a small change, in bfloat16, is 1
        return change + _still(change)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        check_rank(x, self.ndim)
        theta = self.theta(x)
        frames = x
        if self.axes == 2 and self.ndim == 3:  # every frame is an image
            theta = theta.expand(-1, x.shape[2], -1, -1)
            frames = x.transpose(1, 2).flatten(0, 1)
        theta = theta.flatten(0, 1)
        still = _still(theta).expand_as(theta)
        moved = frames + (_sampled(frames, theta) - _sampled(frames, still))
        return moved if frames is x else moved.unflatten(0, (-1, x.shape[2])).transpose(1, 2)


def _still(theta: Tensor) -> Tensor:
    """The map that moves nothing, in the shape of those of `theta`."""
    return torch.eye(*theta.shape[-2:], dtype=theta.dtype, device=theta.device)


def _sampled(x: Tensor, theta: Tensor) -> Tensor:
    """(N, C, *S) at the places of affine maps (N, axes, axes + 1), in float32 at least."""
    wide = at_least_float32(x)
    kind = x.device.type
    with nullcontext() if kind == "meta" else torch.autocast(kind, enabled=False):  # meta is unknown to autocast
        grid = F.affine_grid(theta.to(wide.dtype), list(x.shape), align_corners=False)
        return F.grid_sample(wide, grid, align_corners=False).to(x.dtype)
