"""CBAM: Convolutional Block Attention Module, for images and clips.

Woo, Park, Lee, Kweon, ECCV 2018, https://arxiv.org/abs/1807.06521

    F'  = Mc(F) * F          Mc = σ(MLP(AvgPool F) + MLP(MaxPool F))       channel,  pooled over space
    F'' = Ms(F') * F'        Ms = σ(conv_k([AvgPool F' ; MaxPool F']))     spatial,  pooled over channels
    F''' = Mt(F'') * F''     Mt = σ(conv_kt([AvgPool F'' ; MaxPool F'']))  temporal, pooled over C, H, W

The first two are the paper's, where space is T×H×W in a clip; the third is an extension, for clips
only. Shapes are (N, C, *S), S = (H, W) or (T, H, W).
"""

from collections.abc import Sequence
from typing import Literal, TypedDict, Unpack

import torch
from torch import Tensor, nn

from cbam3d.attention.gate import Gate, Init, channel_mlp, check_init, one_of, zero_
from cbam3d.attention.nd import BATCH_NORM, amax, as_tuple, check_channels, check_ndim, check_rank, same_padding
from cbam3d.attention.ops.gating import multiply, pool_channels, pool_positions, scale
from cbam3d.attention.ops.planes import PLANE_CONV
from cbam3d.errors import unknown

GateName = Literal["channel", "spatial", "temporal"]


class _Options(TypedDict, total=False):
    """What `CBAM2d` and `CBAM3d` pass on to `CBAM`."""

    temporal_kernel_size: int
    gates: Sequence[GateName] | None
    arrangement: Literal["sequential", "parallel"]
    residual: bool
    bias: bool
    conv_bias: bool | None
    batch_norm: bool
    init: Init


class PooledGate(Gate):
    """A gate computed from means and maxima of the features."""

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """x, its means and its maxima; raises ValueError for an input of the wrong shape."""
        raise NotImplementedError

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """The map before the sigmoid, broadcastable to `x`."""
        raise NotImplementedError

    def pooled_map(self, mean: Tensor, maximum: Tensor) -> Tensor:
        """The map."""
        return self.squash(self.pooled_logits(mean, maximum))

    def logits(self, x: Tensor) -> Tensor:
        return self.pooled_logits(*self.pool(x)[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *S) -> the same shape."""
        x, mean, maximum = self.pool(x)
        return multiply(x, self.pooled_map(mean, maximum))


class ChannelAttention(PooledGate):
    """Channel attention of CBAM: which channels matter, one weight per channel.

    Args:
        channels: number of input channels C.
        reduction: the hidden layer has `max(1, channels // reduction)` units.
        bias: biases in both layers of the MLP. The official code has them, most ports do not.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, *S) -> the same, of any rank; `attention_map` is (N, C, 1, …).

    Raises:
        ValueError: channels or reduction below 1.

    Examples:
        >>> from cbam3d import ChannelAttention
        >>> ChannelAttention(64).attention_map(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 1, 1, 1])
    """

    def __init__(self, channels: int, reduction: int = 16, bias: bool = False, init: Init = "paper") -> None:
        super().__init__(init)
        self.channels = channels
        self.mlp = channel_mlp(channels, reduction, bias, self.identity_init)

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_channels(x, self.channels)
        return pool_positions(x)

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        of_mean, of_maximum = self.mlp(torch.stack([mean.flatten(1), maximum.flatten(1)])).unbind(0)
        return (of_mean + of_maximum).view_as(mean)


class SpatialAttention(PooledGate):
    """Spatial attention of CBAM: which positions matter, one weight per position.

    Args:
        kernel_size: odd; an int for all axes, or one per axis. The default is 7 along H and W, and 1
            along T: one map per frame. `(kt, k, k)` gives a joint space-time map.
        ndim: 2 for images, 3 for clips.
        batch_norm: BatchNorm after the convolution, as in the official code; most ports have none.
        bias: a bias in the convolution.
        init: "paper" (with batch_norm the norm's weight starts at 0, as in the official code, so that
            the map starts at 0.5 everywhere), or "identity" to start as the exact identity.

    Shapes: (N, C, *S) -> the same; `attention_map` is (N, 1, *S). The two pooled planes are
    concatenated as [mean; max], the paper's order (the official code has [max; mean]).

    Raises:
        ValueError: an even kernel, or an input of the wrong rank.

    Examples:
        >>> from cbam3d import SpatialAttention
        >>> SpatialAttention((3, 7, 7)).attention_map(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 1, 8, 14, 14])
    """

    def __init__(
        self,
        kernel_size: int | Sequence[int] | None = None,
        ndim: int = 3,
        batch_norm: bool = False,
        bias: bool = False,
        init: Init = "paper",
    ) -> None:
        super().__init__(init)
        self.ndim = check_ndim(ndim)
        kernel = (1, 7, 7)[-ndim:] if kernel_size is None else kernel_size
        self.conv = PLANE_CONV[ndim](2, 1, as_tuple(kernel, ndim), padding=same_padding(kernel, ndim), bias=bias)
        self.norm = (
            BATCH_NORM[ndim](1, momentum=0.01) if batch_norm else nn.Identity()
        )  # momentum as in the official code
        if batch_norm:
            zero_(self.norm)
        elif self.identity_init:
            zero_(self.conv)

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_rank(x, self.ndim)
        return pool_channels(x)

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        return self.norm(self.conv(torch.cat([mean, maximum], dim=1)))


class TemporalAttention(PooledGate):
    """Temporal attention: which frames of a clip matter, one weight per frame. An extension of CBAM.

    Args:
        kernel_size: odd; frames covered by the convolution along T.
        bias: a bias in the convolution.
        init: "paper", or "identity" to start as the exact identity (see `Gate`).

    Shapes: (N, C, T, H, W) -> the same; `attention_map` is (N, 1, T, 1, 1).

    Raises:
        ValueError: an even kernel, or an input that is not a batch of clips.

    Examples:
        >>> from cbam3d import TemporalAttention
        >>> TemporalAttention(kernel_size=5).attention_map(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 1, 8, 1, 1])
    """

    def __init__(self, kernel_size: int = 3, bias: bool = False, init: Init = "paper") -> None:
        super().__init__(init)
        (padding,) = same_padding(kernel_size, 1)
        self.conv = nn.Conv1d(2, 1, kernel_size, padding=padding, bias=bias)
        if self.identity_init:
            zero_(self.conv)

    def pool(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        check_rank(x, 3)
        return pool_channels(x)

    def pooled_logits(self, mean: Tensor, maximum: Tensor) -> Tensor:
        pooled = torch.stack([mean.mean((1, 3, 4)), amax(maximum, (1, 3, 4))], dim=1)
        return self.conv(pooled)[..., None, None]


class CBAM(nn.Module):
    """The CBAM block: its gates in sequence or in parallel.

    Args:
        channels: number of input channels C.
        reduction: of the channel gate's MLP.
        kernel_size: of the spatial gate; None for 7 along H and W, and 1 along T.
        temporal_kernel_size: of the temporal gate, in frames.
        gates: which gates, in which order; None for channel, spatial and, in a clip, temporal.
        ndim: 2 for images, 3 for clips.
        arrangement: "sequential" (the paper): each gate takes the previous one's output; or "parallel":
            all take the input, and their maps are multiplied.
        residual: `x + CBAM(x)`. Incompatible with init="identity", which would give 2x.
        bias: biases in the channel MLP.
        conv_bias: biases in the convolutions; None for the same as `bias`.
        batch_norm: BatchNorm in the spatial gate. The official code has bias=True, conv_bias=False, batch_norm=True.
        init: "paper", or "identity" to start as the exact identity (see `Gate`). With "paper" the
            features are scaled by about 1/4 at the start (1/8 with three gates).

    Shapes: (N, C, *S) -> the same.

    The gates are applied together, in one product, without calls of their own: hooks on them do not run. Layers start
    as PyTorch's do; the official code starts all biases at 0.

    Raises:
        ValueError: an unknown, repeated or missing gate, a temporal gate with ndim=2, an even kernel,
            or an input of the wrong rank.

    Examples:
        >>> from cbam3d import CBAM
        >>> block = CBAM(64, gates=("channel", "spatial"), ndim=2)
        >>> block(torch.randn(2, 64, 28, 28)).shape
        torch.Size([2, 64, 28, 28])
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int | Sequence[int] | None = None,
        temporal_kernel_size: int = 3,
        gates: Sequence[GateName] | None = None,
        ndim: int = 3,
        arrangement: Literal["sequential", "parallel"] = "sequential",
        residual: bool = False,
        bias: bool = False,
        conv_bias: bool | None = None,
        batch_norm: bool = False,
        init: Init = "paper",
    ) -> None:
        super().__init__()
        self.ndim = check_ndim(ndim)
        conv_bias = bias if conv_bias is None else conv_bias
        one_of("arrangement", arrangement, "sequential", "parallel")
        if residual and check_init(init):
            raise ValueError('residual=True with init="identity" would double the features: choose one')
        self.gates = _check_gates(gates, ndim)
        self.arrangement = arrangement
        self.residual = residual
        for gate in self.gates:
            if gate == "channel":
                self.channel = ChannelAttention(channels, reduction, bias, init)
            elif gate == "spatial":
                self.spatial = SpatialAttention(kernel_size, ndim, batch_norm, conv_bias, init)
            else:
                self.temporal = TemporalAttention(temporal_kernel_size, conv_bias, init)

    def attention_maps(self, x: Tensor) -> dict[GateName, Tensor]:
        """Return each gate's map for this input, by name, in the gates' order."""
        return self._attend(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        if self.arrangement == "parallel" or "channel" in self.gates[1:]:
            out, _ = self._attend(x)
        else:
            out = self._attend_at_once(x)
        return x + out if self.residual else out

    def _attend_at_once(self, x: Tensor) -> Tensor:
        """The gates in sequence, and one product. As no gate is negative, mean and maximum over channels of gated
        features are the gate times those of the features: position gates after the first work on planes alone."""
        check_rank(x, self.ndim)
        of_channels, of_positions = None, None
        if "channel" in self.gates:
            x, mean, maximum = self.channel.pool(x)
            of_channels = self.channel.pooled_map(mean, maximum)
        gates: list[PooledGate] = [getattr(self, name) for name in self.gates if name != "channel"]
        if gates:
            x, mean, maximum = pool_channels(x, of_channels)
            for gate in gates:
                one = gate.pooled_map(mean, maximum)
                of_positions = one if of_positions is None else of_positions * one
                mean, maximum = mean * one, maximum * one
        return scale(x, of_channels, of_positions)

    def _attend(self, x: Tensor) -> tuple[Tensor, dict[GateName, Tensor]]:
        check_rank(x, self.ndim)
        out, maps = x, {}
        for name in self.gates:
            gate: Gate = getattr(self, name)
            maps[name] = gate.attention_map(out if self.arrangement == "sequential" else x)
            out = multiply(out, maps[name])
        return out, maps

    def extra_repr(self) -> str:
        return f"ndim={self.ndim}, arrangement={self.arrangement!r}, residual={self.residual}"


class CBAM2d(CBAM):
    """`CBAM` for images, (N, C, H, W).

    Args:
        channels: number of input channels C.
        reduction: of the channel gate.
        kernel_size: of the spatial gate.
        options: `gates`, `arrangement`, `residual`, `init` and the rest, as of `CBAM`.

    Examples:
        >>> from cbam3d import CBAM2d
        >>> block = CBAM2d(64, reduction=8)
        >>> block(torch.randn(2, 64, 28, 28)).shape
        torch.Size([2, 64, 28, 28])
    """

    def __init__(
        self, channels: int, reduction: int = 16, kernel_size: int | Sequence[int] = 7, **options: Unpack[_Options]
    ) -> None:
        super().__init__(channels, reduction, kernel_size, ndim=2, **options)


class CBAM3d(CBAM):
    """`CBAM` for clips, (N, C, T, H, W).

    Args:
        channels: number of input channels C.
        reduction: of the channel gate.
        kernel_size: of the spatial gate.
        options: `gates`, `temporal_kernel_size`, `arrangement`, `residual`, `init` and the rest, as of `CBAM`.

    Examples:
        >>> from cbam3d import CBAM3d
        >>> clip = torch.randn(2, 64, 8, 14, 14)
        >>> torch.equal(CBAM3d(64, init="identity")(clip), clip)
        True
        >>> {name: tuple(one.shape) for name, one in CBAM3d(64).attention_maps(clip).items()}["temporal"]
        (2, 1, 8, 1, 1)
    """

    def __init__(
        self,
        channels: int,
        reduction: int = 16,
        kernel_size: int | Sequence[int] = (1, 7, 7),
        **options: Unpack[_Options],
    ) -> None:
        super().__init__(channels, reduction, kernel_size, ndim=3, **options)


def _check_gates(gates: Sequence[GateName] | None, ndim: int) -> tuple[GateName, ...]:
    known: tuple[GateName, ...] = ("channel", "spatial", "temporal")
    if gates is None:
        return known[:ndim]
    if isinstance(gates, str):
        raise ValueError(f"gates are a list of names, such as [{gates!r}], got a text")
    for gate in gates:
        if gate not in known:
            raise ValueError(unknown("gate", gate, known))
    if len(set(gates)) != len(gates) or not gates:
        raise ValueError(f"gates must name at least one gate, each once, got {tuple(gates)}")
    if "temporal" in gates and ndim == 2:
        raise ValueError("a temporal gate needs clips: ndim=2 has no time axis")
    return tuple(gates)
