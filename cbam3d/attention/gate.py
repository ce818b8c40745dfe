"""Shared by the mechanisms: initialisation, base classes and small networks."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn

from cbam3d.attention.ops.gating import multiply

Init = Literal["paper", "identity"]


def check_init(init: str) -> bool:
    """True for "identity", False for "paper"; raises ValueError for anything else."""
    return one_of("init", init, "paper", "identity") == "identity"


def hidden_channels(channels: int, reduction: int, least: int = 1) -> int:
    """Bottleneck width, `channels // reduction` but at least `least`; raises ValueError for values below 1."""
    if min(channels, reduction, least) < 1:
        raise ValueError(f"channels and reduction must be at least 1, got {channels} and {reduction}")
    return max(least, channels // reduction)


def one_of(name: str, value: str, *known: str) -> str:
    """The value of an option, where it is one of those; else raise ValueError."""
    if value not in known:
        listed = " or ".join(", ".join(f'"{one}"' for one in part) for part in (known[:-1], known[-1:]))
        raise ValueError(f"{name} must be {listed}, got {value!r}")
    return value


def positive(name: str, *values: int) -> None:
    """Raise ValueError unless every value of an option is an int of at least 1."""
    if not all(isinstance(value, int) and value >= 1 for value in values):
        raise ValueError(f"{name} must be at least 1, got {', '.join(map(str, values))}")


def channel_mlp(channels: int, reduction: int, bias: bool, zero: bool) -> nn.Sequential:
    """Linear, ReLU, Linear: (N, C) -> (N, C) via C/r units; with `zero` the last layer starts at 0."""
    hidden = hidden_channels(channels, reduction)
    last = nn.Linear(hidden, channels, bias=bias)
    if zero:
        zero_(last)
    return nn.Sequential(nn.Linear(channels, hidden, bias=bias), nn.ReLU(), last)


def zero_(layer: nn.Module) -> None:
    """Set a layer's parameters to 0."""
    for parameter in layer.parameters():
        nn.init.zeros_(parameter)


def expand_as(values: Tensor, x: Tensor) -> Tensor:
    """(N, C) -> (N, C, 1, …), with the rank of x."""
    return values.reshape(*values.shape, *(1,) * (x.ndim - 2))


def wide(x: Tensor) -> Tensor:
    """Cast float16 to float32, as squares and sums may overflow; keep other dtypes."""
    return x.float() if x.dtype == torch.float16 else x


def without_float16(x: Tensor) -> AbstractContextManager[Any]:
    """Disable autocast to float16 within the context; other dtypes are unaffected."""
    kind = x.device.type
    if kind == "meta":  # without values, and unknown to autocast
        return nullcontext()
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        return torch.autocast(kind, enabled=False)
    return nullcontext()


def run_wide(module: nn.Module, x: Tensor) -> Tensor:
    """Compute `module(x)`, in float32 where it would run in float16."""
    with without_float16(x):
        state = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        if not any(value.dtype == torch.float16 for value in (x, *state.values())):
            return module(x)
        if torch.jit.is_tracing():  # pyright: ignore[reportPrivateImportUsage]  # no functional_call there
            return module(x.half())
        widened = {name: wide(value) for name, value in state.items()}
        out = torch.func.functional_call(module, widened, (wide(x),))
    with torch.no_grad():
        for name, buffer in module.named_buffers():  # running statistics
            if buffer.dtype == torch.float16:
                buffer.copy_(widened[name].clamp(-65504, 65504))
    return out


class Factor(nn.Module):
    """A learned factor that starts at 0 (init="identity"), or 1 that does not learn (init="paper").

    It is in the state dict in both cases, so that weights keep their meaning under the other init.
    """

    value: Tensor

    def __init__(self, init: Init) -> None:
        super().__init__()
        if check_init(init):
            self.value = nn.Parameter(torch.zeros(1))  # a scalar could not be divided among processes
        else:
            self.register_buffer("value", torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        """x times the factor."""
        return x * self.value.to(x.dtype)


class Multiplicative(nn.Module):
    """`x * attention_map(x)`; a subclass defines the map."""

    def attention_map(self, x: Tensor) -> Tensor:
        """The map that `forward` multiplies by, broadcastable to `x`."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        return multiply(x, self.attention_map(x))


class Gate(Multiplicative):
    """`x * s(logits(x))`, with `s = base + σ` (init="paper") or `s = 2σ` (init="identity").

    A subclass defines `logits`. With init="identity" it also zeroes its last layer, so that the logits
    are 0, the map is `2σ(0) = 1` exactly, and the gate starts as the exact identity while its last
    layer still receives a gradient: a pretrained network keeps its accuracy when gates are inserted.

    The factor of σ is the buffer `scale`, so that it is saved with the weights trained with it.

    Examples:
        >>> from cbam3d.attention.gate import Gate
        >>> class Mean(Gate):
        ...     def logits(self, x):
        ...         return x.mean(1, keepdim=True)
        >>> Mean()(torch.randn(2, 64, 8, 14, 14)).shape
        torch.Size([2, 64, 8, 14, 14])
    """

    base: float = 0.0
    identity_init: bool
    scale: Tensor

    def __init__(self, init: Init = "paper") -> None:
        super().__init__()
        self.identity_init = check_init(init)
        self.register_buffer("scale", torch.tensor(2.0 if self.identity_init else 1.0))

    def logits(self, x: Tensor) -> Tensor:
        """The map before the sigmoid, broadcastable to `x`."""
        raise NotImplementedError

    def attention_map(self, x: Tensor) -> Tensor:
        """The map that `forward` multiplies by: in base + (0, 1), or in (0, 2) with init="identity"."""
        return self.squash(self.logits(x))

    def squash(self, logits: Tensor) -> Tensor:
        """Apply `s` to the logits."""
        gate = self.scale * torch.sigmoid(logits)
        return gate + self.base * (2 - self.scale) if self.base else gate


class Blend(nn.Module):
    """`f(x)` (init="paper"), or `x + γ (f(x) - x)` with a learned γ that starts at 0 (init="identity").

    For mechanisms that return new features rather than a gate; a subclass defines `transform`. γ = 1 is the paper's;
    γ is in the state dict.

    Examples:
        >>> from cbam3d.attention.gate import Blend
        >>> class Backwards(Blend):
        ...     def transform(self, x):
        ...         return x.flip(2)
        >>> clip = torch.randn(1, 4, 8, 7, 7)
        >>> torch.equal(Backwards(init="identity")(clip), clip)
        True
    """

    def __init__(self, init: Init = "paper") -> None:
        super().__init__()
        self.gamma = Factor(init)

    def transform(self, x: Tensor) -> Tensor:
        """Apply the paper's mechanism, (N, C, *spatial) -> the same shape."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, *spatial) -> the same shape."""
        return torch.lerp(x, self.transform(x).to(x.dtype), self.gamma.value.to(x.dtype))
