"""Gates that see their features only through means and maxima: the base of CBAM's gates, SE and ECA."""

from torch import Tensor

from cbam3d.attention.gate import Gate, expand_as
from cbam3d.attention.nd import spatial_axes
from cbam3d.attention.ops.fused import gated


class ChannelGate(Gate):
    """A weight a channel, from the channels' means (and maxima, with `pools_max`) over positions.

    A subclass defines `pooled_logits`.
    """

    pools_max = False

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """(N, C) each -> the map before the sigmoid, (N, C); without `pools_max`, `maximum` is not to be used."""
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
    """Weights of positions or frames, from the means and maxima over channels.

    A subclass defines `pooled_logits`.
    """

    pools_max = True

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """(N, 1, *S) each -> the map before the sigmoid, broadcastable to them."""
        raise NotImplementedError

    def check(self, x: Tensor) -> None:
        """Raise ValueError for features of another rank than the gate is for."""
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
