"""GE: gather and excite.

Hu, Shen, Albanie, Sun, Vedaldi, NeurIPS 2018, https://arxiv.org/abs/1810.12348

    x · σ(nearest upsampling of gather(x))
"""

import math

from torch import Tensor, nn
from torch.nn import functional as F

from cbam3d.attention.gate import Factor, Gate, Init, zero_
from cbam3d.attention.nd import BATCH_NORM, CONV, check_ndim, check_rank, spatial_axes, windowed_mean


class GE(Gate):
    """Gather and excite: each channel is weighted by its own context, without mixing channels.

    Args:
        channels: number of input channels C.
        extent: e, a power of two: gather over 2e - 1 positions along every axis with stride e; 0 for all positions.
        parametrised: gather by depthwise convolutions of stride 2 (the paper's GE-θ) instead of the mean (GE-θ⁻).
        ndim: 2 for images, 3 for clips: the extent applies to T, too.
        init: "paper", or "identity" to start as the exact identity (see `Gate`); if not parametrised, the
            gathered values then have a learned factor that starts at 0.

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, C, *S), or (N, C, 1, …) with extent 0.

    Raises:
        ValueError: an extent that is not a power of two, or 0 with parametrised (the kernel would have the features'
            size, which is unknown).

    Examples:
        >>> from cbam3d.attention import GE
        >>> block = GE(64, extent=4)
        >>> block(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    def __init__(
        self, channels: int, extent: int = 0, parametrised: bool = False, ndim: int = 3, init: Init = "paper"
    ) -> None:
        super().__init__(init)
        self.ndim, self.extent = check_ndim(ndim), extent
        if extent < 0 or extent == 1 or extent & (extent - 1):
            raise ValueError(f"extent must be 0 or a power of two from 2, got {extent}")
        if parametrised and not extent:
            raise ValueError("parametrised needs an extent of 2 or more: the size of a global kernel is unknown")
        self.gather, self.gain = None, None if parametrised else Factor(init)
        if parametrised:
            steps: list[nn.Module] = []
            for _ in range(int(math.log2(extent))):
                conv = CONV[ndim](channels, channels, 3, stride=2, padding=1, groups=channels, bias=False)
                steps += [conv, BATCH_NORM[ndim](channels), nn.ReLU()]
            self.gather = nn.Sequential(*steps[:-1])
            if self.identity_init:
                zero_(self.gather[-1])

    def logits(self, x: Tensor) -> Tensor:
        check_rank(x, self.ndim)
        if self.gather is not None:
            gathered = self.gather(x)
        elif self.extent:
            window, step, reach = ((size,) * self.ndim for size in (2 * self.extent - 1, self.extent, self.extent - 1))
            gathered = windowed_mean(x, window, step, reach, reach)
        else:
            gathered = x.mean(spatial_axes(x), keepdim=True)
        if self.gain is not None:
            gathered = self.gain(gathered)
        return F.interpolate(gathered, size=x.shape[2:]) if self.extent else gathered
