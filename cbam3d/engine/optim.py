"""Optimisers, frozen parameters, and the moving average of the weights."""

import inspect
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from cbam3d.errors import InputError, check_options, unknown

_SHORT = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
# without groups of parameters, for sparse gradients only, or with rates of its own, which follow no schedule
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam", "Rprop"}


def create_optimizer(
    model: nn.Module,
    name: str,
    learning_rate: float,
    weight_decay: float,
    options: Mapping[str, Any] | None = None,
    new: Collection[str] = (),
    new_rate_factor: float = 1.0,
    layer_decay: float = 1.0,
    fused: bool = False,
) -> torch.optim.Optimizer:
    """An optimiser of torch.optim over the trainable parameters. Vectors (norms, biases) have no weight decay.

    Args:
        model: its frozen parameters are left out.
        name: sgd, adam, adamw, or a class of torch.optim that takes groups of parameters and dense gradients.
        learning_rate: the maximum.
        weight_decay: of matrices and kernels.
        options: further keyword arguments of the class.
        new: names of parameters that pretrained weights do not contain: attention, head.
        new_rate_factor: their learning rate, relative to that of the others.
        layer_decay: factor of the learning rate per layer of the others, from the last to the first (see `depths`).
        fused: one kernel for all parameters, where the class has it.

    Every group of parameters has an entry "new".

    Raises:
        InputError: no such optimiser, an option that it does not have, or no trainable parameter.
    """
    classes = {n: c for n, c in vars(torch.optim).items() if isinstance(c, type) and n not in _UNFIT}
    optimizer = classes.get(_SHORT.get(name, name))
    if optimizer is None:
        raise InputError("train.optimizer: " + unknown("optimiser", name, [*_SHORT, *classes]))
    known = inspect.signature(optimizer).parameters
    try:
        check_options(f"train.optimizer {name}", options or {}, set(known) - {"params", "lr", "weight_decay"})
    except ValueError as error:
        raise InputError(str(error)) from None
    decay = {"weight_decay": weight_decay} if "weight_decay" in known else {}
    parameters = dict(model.named_parameters())
    depth = depths(key for key in parameters if key not in new)
    last = max(depth.values(), default=0)
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    for key, parameter in parameters.items():
        if parameter.requires_grad:
            is_vector, is_new = parameter.ndim <= 1, key in new
            factor = new_rate_factor if is_new else layer_decay ** (last - depth[key])
            settings = {"lr": learning_rate * factor, **({"weight_decay": 0.0} if is_vector and decay else decay)}
            group = groups.setdefault((is_new, is_vector, factor), {"params": [], "new": is_new, **settings})
            group["params"].append(parameter)
    if not groups:
        raise InputError("train.freeze leaves no parameter to learn")
    options = dict(options or {})
    if fused and "fused" in known:
        options.setdefault("fused", True)
    try:
        return optimizer(list(groups.values()), lr=learning_rate, **options)
    except Exception as error:  # constructors raise many kinds of exceptions for a wrong option
        raise InputError(f"train.optimizer {name}: {' '.join(str(error).split())}") from None


def depths(names: Iterable[str]) -> dict[str, int]:
    """The layer of each parameter, counted from 0, by its name.

    A layer is what a numbered module holds: "layer1.0" of layer1.0.conv1.weight, "blocks.3.1" of
    blocks.3.1.conv_pw.weight. Parameters of modules without a number belong to the layer before them.
    """
    found: dict[str, int] = {}
    layers: list[str] = []
    for name in names:
        match = re.match(r"(?:.*?\.)?\d+(?:\.\d+)*(?=\.)", name)
        if match and match[0] not in layers:
            layers.append(match[0])
        found[name] = len(layers)
    return found


def freeze_norms(model: nn.Module, new: Collection[str] = ()) -> None:
    """Freeze the weights and biases of every norm, and with them the running statistics (see `train_mode`).

    Args:
        model: the network.
        new: names of parameters that pretrained weights do not contain; they stay trainable.
    """
    for name, module in model.named_modules():
        if _is_norm(module):
            for key, parameter in module.named_parameters(name, recurse=False):
                if key not in new:
                    parameter.requires_grad = False


def _is_norm(module: nn.Module) -> bool:
    return isinstance(module, (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm))


def freeze(model: nn.Module, patterns: Sequence[str], new: Collection[str] = ()) -> None:
    """Freeze the parameters whose names match a pattern ("layer1.*").

    Args:
        model: the network.
        patterns: of names.
        new: names of parameters that pretrained weights do not contain. They stay trainable unless a pattern matches
            nothing else.

    Raises:
        InputError: a pattern that matches none.
    """
    parameters = dict(model.named_parameters())
    for pattern in patterns:
        chosen = [key for key in parameters if fnmatchcase(key, pattern)]
        if not chosen:
            some = ", ".join(list(parameters)[:3])
            raise InputError(f"train.freeze: no parameter fits {pattern!r}; there are {some}, …")
        for key in [key for key in chosen if key not in new] or chosen:
            parameters[key].requires_grad = False


class MovingAverage(AveragedModel):
    """An exponential moving average of parameters and buffers. Buffers with infinite values, such as masks, are copied.

    Args:
        model: what is averaged.
        decay: per step, above 0 and below 1; after n steps at most (1 + n) / (10 + n), so that a short training's
            average does not consist of its first steps.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, use_buffers=True)
        self.decay = decay
        self.infinite = [name for name, buffer in model.named_buffers() if not buffer.isfinite().all()]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module, counts: Tensor | None = None) -> None:
        """Take a step towards a model; none where `counts`, () and boolean, is false."""
        steps = int(self.n_averaged)  # it is on the host; the first step copies
        rate = 1.0 - min(self.decay, (1 + steps) / (10 + steps)) if steps else 1.0
        weight = rate if counts is None else rate * counts
        averages, values = ([*m.parameters(), *m.buffers()] for m in (self.module, model))
        for is_float in (True, False):
            pairs = [pair for pair in zip(averages, values, strict=True) if pair[0].is_floating_point() == is_float]
            mine, theirs = [average for average, _ in pairs], [value.detach() for _, value in pairs]
            if is_float:  # its own kernel would read the weight on the host
                ahead = torch._foreach_sub(theirs, mine)  # pyright: ignore[reportPrivateImportUsage]
                torch._foreach_mul_(ahead, weight)  # pyright: ignore[reportPrivateImportUsage]
                torch._foreach_add_(mine, ahead)  # pyright: ignore[reportPrivateImportUsage]
            elif pairs:
                torch._foreach_copy_(mine, theirs)  # pyright: ignore[reportPrivateImportUsage]
        for name in self.infinite:  # interpolating infinities gives nan
            self.module.get_buffer(name).copy_(model.get_buffer(name))
        self.n_averaged += 1


def train_mode(model: nn.Module, new: Collection[str] | None = None) -> None:
    """Training mode, except for norms that are frozen as a whole: they keep their running statistics.

    Args:
        model: the network.
        new: names of the only parameters that are trained for now; None for all that are not frozen.
    """
    model.train()
    for name, module in model.named_modules():
        own = dict(module.named_parameters(name, recurse=False))
        learns = any(p.requires_grad and (new is None or key in new) for key, p in own.items())
        if own and isinstance(module, nn.modules.batchnorm._NormBase) and not learns:
            module.eval()
