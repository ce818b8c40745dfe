"""Another head on a network: the network ends at its last features, and a head of `attention.heads` follows."""

from collections.abc import Collection
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.attention.insertion.features import describe, enlarge, evaluating, examples, run, with_layouts
from cbam3d.attention.nd import pool_to_grid


class HeadedNetwork(nn.Module):
    """A network that ends at features, and a head.

    Args:
        backbone: inputs -> features (N, C, *S), as `cut` or `FrameNetwork` make it.
        head: features -> logits (N, K).
        grid: height and width to which features (N, C, T, h, w) and (N, C, h, w) are averaged before the head; None
            leaves them. 1 leaves the frames of a clip as a sequence of vectors.

    Shapes: those of the backbone's input -> (N, K). Where `takes_features` is set, inputs are what `features` returns.

    Examples:
        >>> from cbam3d import create_model
        >>> model = create_model("resnet10", 10, head="attention", width=16)
        >>> type(model).__name__, model.features(torch.randn(1, 3, 8, 32, 32)).shape[1]
        ('HeadedNetwork', 128)
    """

    def __init__(self, backbone: nn.Module, head: nn.Module, grid: int | None = None) -> None:
        super().__init__()
        self.backbone, self.head, self.grid = backbone, head, grid
        self.takes_features = False

    def features(self, x: Tensor) -> Tensor:
        """What the head takes, (N, C, *S); tokens of a network of clips are positions of one frame, (N, C, 1, L, 1), as
        their order tells nothing of time."""
        features = self.backbone(x)
        if features.ndim == 3 and x.ndim == 5:
            features = features[:, :, None, :, None]
        if self.grid is None or features.ndim < 4:
            return features
        return pool_to_grid(features, (*features.shape[2:-2], self.grid, self.grid))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x if self.takes_features else self.features(x))


class _Captured:
    """The output of a layer, on its way to the end of its network."""

    def __init__(self, channels_last: bool) -> None:
        self.channels_last = channels_last
        self.features: Tensor | None = None

    def take(self, layer: nn.Module, args: Any, output: Tensor) -> None:
        self.features = output.movedim(-1, 1) if self.channels_last else output

    def give(self, network: nn.Module, args: Any, output: Any) -> Tensor | None:
        features, self.features = self.features, None
        return features


def cut(model: nn.Module, head: Collection[str] | None = None, example: Any = None) -> int:
    """End a network at the last features before its head, in place: it then returns these, (N, C, *S).

    The features are the last output with positions: a feature map, or tokens (N, L, C), which become (N, C, L). Modules
    behind it lose their parameters; others that they do not depend on are frozen.

    Args:
        model: the network.
        head: names of the parameters that depend on the number of classes; None for those of the last module.
        example: an input; None to try images and clips of common sizes.

    Returns: the channels of the features.

    Raises:
        ValueError: there is no such output that everything behind it depends on.
    """
    kind = type(model).__name__
    failure = f"{kind} takes none of the inputs tried"
    found: tuple[list[Event], int, Any] | None = None
    for inputs in [example] if example is not None else examples(model):
        try:
            events = _events(model, inputs)
        except Exception as error:  # networks reject a size with any error
            failure = f"{kind}: {str(error).partition(chr(10))[0]}"
            continue
        before = _before_head(model, events, head)
        candidates = [i for i, (_, output) in enumerate(before) if output is not None and _has_positions(output)][::-1]
        if not candidates:
            failure = f"{kind} has no features with positions for another head"
            continue
        place = next((i for i in candidates[:_TRIES] if not _passes_by(model, events[i][0], inputs)), None)
        if place is None:
            name = events[candidates[0]][0]
            raise ValueError(f"{kind} has no single features for another head: its own reads more than {name}")
        is_same = found is not None and found[0][found[1]][0] == events[place][0]
        if found is None or len(events) - place < len(found[0]) - found[1]:
            found = events, place, inputs
        if is_same or not _shrinks_to_one(model, before[place + 1 :]):
            break
    if found is None:
        raise ValueError(failure)
    channels = _end_at(model, *found)
    _freeze_unused(model, found[2])
    return channels


_TRIES = 64  # outputs, from the last one, that are tried as the end of a network
Event = tuple[str, Tensor | None]  # a module begins (None), or ends with an output


def _shrinks_to_one(model: nn.Module, events: list[Event]) -> bool:
    """Whether layers with parameters had one position only: maps of a larger input perhaps, or what follows pooling."""
    return any(
        output is not None and output.ndim in (4, 5) and not _has_positions(output) and _has_own(model, name)
        for name, output in events
    )


def _has_own(model: nn.Module, name: str) -> bool:
    return bool([*model.get_submodule(name).parameters(recurse=False)])


def _end_at(model: nn.Module, events: list[Event], place: int, inputs: Any) -> int:
    """Let a network return the output of an event; returns its channels."""
    name, features = events[place]
    assert features is not None
    layer = model.get_submodule(name)
    found = describe(layer, features)  # None for tokens
    for factor in (1, 2) if found is not None else ():
        larger = run(model, enlarge(inputs, factor))
        found = with_layouts({name: found}, larger.features)[name]  # type: ignore[dict-item]
        if larger.error is None:
            break
    channels_last = found is None or found.layout == "channels_last"
    captured = _Captured(channels_last)
    layer.register_forward_hook(captured.take)
    model.register_forward_hook(captured.give)
    behind: list[str] = []
    for later, output in events[place + 1 :]:
        known = any(f"{later}.".startswith(f"{outer}.") for outer in behind)
        if output is None and not known and list(model.get_submodule(later).parameters()):
            behind.append(later)
    for later in behind:
        parent, _, child = later.rpartition(".")
        setattr(model.get_submodule(parent), child, _Unused())
    return features.shape[-1 if channels_last else 1]


def _freeze_unused(model: nn.Module, inputs: Any) -> None:
    """Freeze the parameters that features do not depend on."""
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    with torch.enable_grad(), evaluating(model):
        found = torch.autograd.grad(model(inputs).sum(), parameters, allow_unused=True)
    for parameter, gradient in zip(parameters, found, strict=True):
        parameter.requires_grad = gradient is not None


class _Unused(nn.Module):
    """In place of a module whose output nobody reads."""

    def forward(self, *args: Any, **options: Any) -> Any:
        """The first argument."""
        return next(iter((*args, *options.values())))


def _events(model: nn.Module, inputs: Any) -> list[Event]:
    """Run a network, and record when its modules begin and end."""
    events: list[Event] = []

    def begin(name: str, module: nn.Module, args: Any) -> None:
        events.append((name, None))

    def end(name: str, module: nn.Module, args: Any, output: Any) -> None:
        if isinstance(output, Tensor):
            events.append((name, output))

    handles: list[Any] = []
    for name, module in model.named_modules():
        if name:
            handles.append(module.register_forward_pre_hook(partial(begin, name)))
            handles.append(module.register_forward_hook(partial(end, name)))
    try:
        with torch.no_grad(), evaluating(model):
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    return events


def _before_head(model: nn.Module, events: list[Event], head: Collection[str] | None) -> list[Event]:
    """The events before a module of the head begins."""
    if head is None:
        begun = [name for name, output in events if output is None]
        ends = {next((name for name in reversed(begun) if _has_own(model, name)), "")}
    else:
        ends = {name.rpartition(".")[0] for name in head}
    begins = [i for i, (name, output) in enumerate(events) if output is None and name in ends]
    return events[: min(begins, default=len(events))]


def _has_positions(output: Tensor) -> bool:
    if output.ndim in (4, 5):
        return output.shape[2:].numel() > 1
    return output.ndim == 3 and output.shape[1] > 1


def _passes_by(model: nn.Module, layer: str, inputs: Any) -> bool:
    """Whether the output depends on the input in another way than through a layer's output."""
    handle = model.get_submodule(layer).register_forward_hook(lambda module, args, output: output.detach())
    training = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    try:
        with torch.enable_grad(), evaluating(model):
            for parameter, _ in training:
                parameter.requires_grad = False
            moved = [x.clone().requires_grad_() for x in (inputs if isinstance(inputs, list) else [inputs])]
            output = model(moved if isinstance(inputs, list) else moved[0])
        return any(x.requires_grad for x in (output if isinstance(output, (tuple, list)) else [output]))
    finally:
        handle.remove()
        for parameter, required in training:
            parameter.requires_grad = required
