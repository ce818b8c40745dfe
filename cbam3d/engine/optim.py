"""Optimisers, frozen parameters, and the moving average of the weights."""

import inspect
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cbam3d.errors import InputError, check_options, unknown

_SHORT = {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}
_UNFIT = {"Optimizer", "LBFGS", "SparseAdam"}  # without groups of parameters, or for sparse gradients only


def create_optimizer(
    model: nn.Module,
    name: str,
    learning_rate: float,
    weight_decay: float,
    options: Mapping[str, Any] | None = None,
    new: Collection[str] = (),
    new_rate_factor: float = 1.0,
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
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for key, parameter in model.named_parameters():
        if parameter.requires_grad:
            is_vector, is_new = parameter.ndim <= 1, key in new
            rate = learning_rate * (new_rate_factor if is_new else 1.0)
            settings = {"lr": rate, **({"weight_decay": 0.0} if is_vector and decay else decay)}
            groups.setdefault((is_new, is_vector), {"params": [], **settings})["params"].append(parameter)
    if not groups:
        raise InputError("train.freeze leaves no parameter to learn")
    try:
        return optimizer(list(groups.values()), lr=learning_rate, **(options or {}))
    except Exception as error:  # constructors raise many kinds of exceptions for a wrong option
        raise InputError(f"train.optimizer {name}: {' '.join(str(error).split())}") from None


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
        decay: per step, above 0 and below 1.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model, multi_avg_fn=get_ema_multi_avg_fn(decay), use_buffers=True)
        self.infinite = [name for name, buffer in model.named_buffers() if not buffer.isfinite().all()]

    @torch.no_grad()
    def update_parameters(self, model: nn.Module) -> None:
        super().update_parameters(model)
        for name in self.infinite:  # interpolating infinities gives nan
            self.module.get_buffer(name).copy_(model.get_buffer(name))


def train_mode(model: nn.Module) -> None:
    """Training mode, except for norms that are frozen as a whole: they keep their running statistics."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and isinstance(module, nn.modules.batchnorm._NormBase) and not any(p.requires_grad for p in own):
            module.eval()
