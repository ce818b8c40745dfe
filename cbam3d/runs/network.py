"""A configuration -> its network."""

import math
import sys

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cbam3d.attention import attention_options
from cbam3d.attention.heads import head_options
from cbam3d.attention.nd import CHANNELS_LAST
from cbam3d.config import Config
from cbam3d.config.bundled import find_recipe
from cbam3d.data.recipe import load_recipe
from cbam3d.data.rng import torch_seeded
from cbam3d.errors import InputError, is_foreign
from cbam3d.models import create_model
from cbam3d.models.ours import OURS, attention_of, network_options
from cbam3d.models.weights import WeightsReport
from cbam3d.models.zoo import check_model_name, is_class_path

GIVEN = "(given)"  # in place of a name, where a network was passed to `train`


def check_names(config: Config) -> None:
    """Raise InputError for a network or a mechanism that does not exist, before data is read for it."""
    model = config.model
    try:
        if model.name != GIVEN:
            check_model_name(model.name)
        if (mechanism := attention_of(model.name, model.attention)) is not None:
            attention_options(mechanism)
        if model.head is not None:
            head_options(model.head)
    except ValueError as error:
        raise InputError(f"model: {error}") from None
    if model.name == GIVEN or is_class_path(model.name) or model.name.startswith("hf/"):
        return
    build_skeleton(config)  # which checks the options, too


def build_skeleton(config: Config) -> nn.Module | None:
    """The network without weights and without memory, on the device "meta"; None for one that computes as it is built.

    Raises:
        InputError: as `build_model` does.
    """
    try:
        with torch.device("meta"):
            return build_model(config.override({"model.weights": None}), 2, has_images(config))
    except InputError:
        raise
    except Exception:  # of its constructor, on tensors without values
        return None


def build_model(config: Config, num_classes: int, images: bool) -> nn.Module:
    """The network of a configuration.

    Args:
        config: `model`, and what the network follows of `data` and `run`.
        num_classes: size of the logits.
        images: whether inputs are images, rather than clips.

    Raises:
        InputError: an option or a value that the network, the mechanism or the weights refuse.
    """
    model, run = config.model, config.run
    attention, options = dict(model.attention_options), dict(model.options)
    if model.name == GIVEN:
        raise InputError("the network was passed to train(model=…): pass it here as well, as model=…")
    try:
        mechanism = attention_of(model.name, model.attention)
        if mechanism is None:
            attention = {}  # of the configuration that model.attention null changes
        elif "num_frames" in attention_options(mechanism):
            attention.setdefault("num_frames", config.data.num_frames)
        if model.as_video is not None and images:
            raise InputError("model.as_video is for clips, the data has images")
        if model.name in OURS and "size" in network_options(model.name):
            options.setdefault("size", input_shape(config, images)[1:])
        with torch_seeded(run.seed):
            network = create_model(
                model.name,
                num_classes,
                ndim=2 if images else 3,
                attention=model.attention,
                attention_options=attention,
                weights=model.weights,
                weights_match=model.weights_match,
                as_video=model.as_video,
                head=model.head,
                head_options=dict(model.head_options),
                **options,
            )
    except (ValueError, TypeError, RuntimeError, ZeroDivisionError) as error:  # torch.nn refuses in several ways
        if is_foreign(error):
            raise
        foreign = "unexpected keyword argument" in str(error)  # of the network that the configuration names
        advice = "; --model.options {} drops the options of the configuration" if foreign else ""
        raise InputError(f"model: {' '.join(str(error).split())}{advice}") from None
    if run.sync_batchnorm:
        network = keep_hooks_and_sync_batchnorm(network)
    if run.channels_last:
        for tensor in (*network.parameters(), *network.buffers()):
            if tensor.ndim in CHANNELS_LAST:
                tensor.data = tensor.data.contiguous(memory_format=CHANNELS_LAST[tensor.ndim])
    return network


def check_network(model: nn.Module | None) -> None:
    """Raise InputError where what was passed as a network is none."""
    if model is not None and not isinstance(model, nn.Module):
        raise InputError(f"model must be a torch.nn.Module, such as Net(num_classes), got {model!r}")


def check_logits(model: nn.Module, config: Config, num_classes: int, images: bool) -> None:
    """Raise InputError where a network that somebody else wrote does not map a batch to logits (N, num_classes)."""
    training, shape = model.training, (2, *input_shape(config, images))
    parameter = next(model.parameters(), torch.empty(0))
    try:
        with torch.no_grad():
            logits = model.eval()(torch.zeros(shape, device=parameter.device))
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"the network does not accept a float32 batch of shape {shape}: {error}") from error
    finally:
        model.train(training)
    if not isinstance(logits, Tensor) or logits.shape != (2, num_classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise InputError(f"the network must map a batch of 2 to logits (2, {num_classes}), got {found}")


def input_shape(config: Config, images: bool) -> tuple[int, ...]:
    """(C, *S) of one sample."""
    size = config.data.sides
    return (3, *size) if images else (3, config.data.num_frames, *size)


def has_images(config: Config) -> bool:
    """Whether the data set of a configuration has images, rather than videos."""
    return load_recipe(find_recipe(config.data.recipe)).kind == "image"


def memory_format(config: Config, images: bool) -> torch.memory_format:
    """Of feature maps."""
    if config.run.channels_last:
        return torch.channels_last if images else torch.channels_last_3d
    return torch.contiguous_format


def new_parameters(model: nn.Module) -> list[str]:
    """Names of the parameters that the pretrained weights do not contain; none where there are no such weights."""
    report = getattr(model, "weights_report", None)
    new = set() if report is None else set(report.new)
    return [name for name, _ in model.named_parameters() if name in new]


def renew_head(model: nn.Module, fresh: nn.Module, wider: nn.Module) -> None:
    """Take the head of a network without weights, where that of the weights is for other classes of the same number.

    Args:
        model: the network with weights; changed in place.
        fresh: the same, without.
        wider: the same, for more classes.
    """
    own, others = fresh.state_dict(), wider.state_dict()
    head = {key: value for key, value in own.items() if value.shape != others[key].shape}
    model.load_state_dict(head, strict=False)
    report: WeightsReport = model.weights_report  # type: ignore[assignment]
    sources = {target: source for source, target in report.renamed.items()}
    for key in [key for key in head if key not in report.new]:
        source = sources.get(key, key)
        report.renamed.pop(source, None)
        report.matched = [name for name in report.matched if name != source]
        report.skipped[source] = "of other classes"
        report.new.append(key)


def count_parameters(model: nn.Module, trained: bool = False) -> int:
    """How many parameters there are; `trained` leaves the frozen ones out."""
    return sum(math.prod(p.shape) for p in model.parameters() if p.requires_grad or not trained)


def keep_hooks_and_sync_batchnorm(model: nn.Module) -> nn.Module:
    """SyncBatchNorm in place of every BatchNorm. The conversions drop hooks, and with them inserted attention.

    Raises:
        InputError: a norm that computes more than BatchNorm does.
    """
    hooks = {name: module._forward_hooks for name, module in model.named_modules() if module._forward_hooks}
    timm = sys.modules.get("timm.layers")
    known = (nn.SyncBatchNorm, timm.BatchNormAct2d) if timm else nn.SyncBatchNorm  # timm's contain an activation
    for name, module in model.named_modules():
        adds = isinstance(module, _BatchNorm) and type(module).forward is not _BatchNorm.forward
        if adds and not isinstance(module, known):
            raise InputError(f"run.sync_batchnorm: {name} is a {type(module).__name__}, of which no form is known")
    model = (timm or nn.SyncBatchNorm).convert_sync_batchnorm(model)
    modules = dict(model.named_modules())
    for name, kept in hooks.items():
        modules[name]._forward_hooks.update(kept)
    return model
