"""Base classes of gates that depend on means and maxima only: CBAM's gates, SE and ECA."""

from torch import Tensor

from cbam3d.attention.gate import Gate, expand_as
from cbam3d.attention.nd import spatial_axes
from cbam3d.attention.ops.fused import gated


class ChannelGate(Gate):
    """One weight per channel, from the channels' means (and maxima, with `pools_max`) over positions.

    A subclass defines `pooled_logits`.
    """

    pools_max = False

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """(N, C) each -> the map before the sigmoid, (N, C); `maximum` must not be used without `pools_max`."""
        raise NotImplementedError

    def gate(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """The weights, (N, C)."""
        return self.squash(self.pooled_logits(mean, maximum))

    def logits(self, x: Tensor) -> Tensor:
        axes = spatial_axes(x)
        mean = x.mean(axes)
        return expand_as(self.pooled_logits(mean, x.amax(axes) if self.pools_max else mean), x)

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> the same shape."""
        return gated(x, self, ())


class PositionGate(Gate):
    """One weight per position or frame, from means and maxima over channels.

    A subclass defines `pooled_logits`.
    """

    pools_max = True

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """(N, 1, *S) each -> the map before the sigmoid, broadcastable to them."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise ValueError for features of the wrong rank."""
        raise NotImplementedError

    def gate(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """The weights, broadcastable to (N, 1, *S)."""
        return self.squash(self.pooled_logits(mean, maximum))

    def logits(self, x: Tensor) -> Tensor:
        self.check(x)
        return self.pooled_logits(x.mean(1, keepdim=True), x.amax(1, keepdim=True))

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> the same shape."""
        self.check(x)
        return gated(x, None, (self,))
