"""Networks by name: this package's, those of libraries, and the user's own."""

import re
import sys
from collections.abc import Callable, Collection, Mapping
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cbam3d.attention import CBAM, insert_attention, list_insertions
from cbam3d.errors import InputError, is_foreign, unknown
from cbam3d.models.download import WEIGHTS, download
from cbam3d.models.libraries import LIBRARIES
from cbam3d.models.ours import OURS, attention_of, build_ours, usual_ndim
from cbam3d.models.weights import WeightsReport, load_weights

# equivalent networks of torchvision, for their weights: (ndim, name) -> torchvision's name
_SAME_AS_TORCHVISION: dict[tuple[int | None, str], str] = {(3, "resnet18"): "r3d_18"}
_SAME_AS_TORCHVISION |= {(2, f"resnet{depth}"): f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}
_REGISTERED: dict[str, Callable[..., nn.Module]] = {}


def list_models() -> list[str]:
    """Names that `create_model` accepts: built-in, registered, and `torchvision/…`, `pytorchvideo/…`, `timm/…`."""
    theirs = [f"{library}/{name}" for library, adapter in LIBRARIES.items() for name in adapter.names()]
    return [*OURS, *_REGISTERED, *theirs]


def register_model(name: str, build: Callable[..., nn.Module]) -> None:
    """Register a network by name for `create_model` and for `model.name` of a configuration.

    Args:
        name: lower case, with underscores; not one of `list_models()`.
        build: a class or function, called with num_classes=… and the options of the configuration. The network maps
            (N, 3, *S) to logits (N, num_classes).

    Raises:
        ValueError: a name that is taken or malformed.
    """
    if not re.fullmatch("[a-z][a-z0-9_]*", name) or name in list_models():
        raise ValueError(f"a new network needs a name of its own, in lower case and underscores, got {name!r}")
    _REGISTERED[name] = build


def is_local_model(name: str) -> bool:
    """Whether only this process knows a network: registered here, or a class of the script."""
    return name in _REGISTERED or name.startswith("__main__:")


def is_class_path(name: str) -> bool:
    """Whether a name is a class path: package.module:Class."""
    return ":" in name


def needs_import(name: str) -> bool:
    """Whether building a network would import a module: its name is a class path, and nobody has imported that yet."""
    return is_class_path(name) and name.partition(":")[0] not in sys.modules


def check_model_name(name: str) -> None:
    """Raise ValueError for a name not in `list_models()`, suggesting the closest. timm names are not looked up, and
    classes are not imported."""
    if name not in (known := list_models()) and not name.startswith("timm/") and not is_class_path(name):
        raise ValueError(unknown("model", name, known))


def create_model(
    name: str,
    num_classes: int,
    ndim: int | None = None,
    attention: str | None = None,
    attention_options: dict[str, Any] | None = None,
    weights: Any = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `list_models()`, or a class as package.module:Class, called with num_classes=… and the options.
        num_classes: size of the logits.
        ndim: 2 for images, 3 for clips. None selects 3, but 2 for cbam_cnn and fast_cnn, and a library network's
            only rank.
        attention: one of `list_attentions()`, inserted into every block; "none" for a plain network. None selects
            the network's default: cbam for cbam_cnn, no attention for the others.
        attention_options: keyword arguments of the mechanism; for library and user networks also those of
            `insert_attention`, such as position. init defaults to "identity", in networks of this package
            without weights to "paper". num_frames of tam is that of the network's input.
        weights: None for random initialisation; a path; the name of torchvision's weights ("KINETICS400_V1",
            "IMAGENET1K_V1", "DEFAULT"), for torchvision's networks and their equivalents in this package; or
            "hf:owner/name" for a repository of the Hugging Face Hub (extra `hub`). They must cover the network,
            except for a head with other classes and attention that they lack. The attribute `weights_report`
            lists what was loaded.
        options: keyword arguments of the network (`ResNet`'s width, stem_pool, …).

    Raises:
        ValueError: an unknown name or option (the message suggests the closest), an invalid value, or weights
            that are missing or do not fit.
    """
    attention = attention_of(name, attention)
    if attention is None and attention_options:
        raise ValueError(f"attention_options without attention: {', '.join(attention_options)}")
    library, _, short = name.rpartition("/")
    if name in OURS:
        ndim = usual_ndim(name) if ndim is None else ndim
        # an outer sum cannot start as the identity; without weights there is nothing to preserve
        fresh = weights is None or (attention_options or {}).get("residual", False)
        chosen = {"init": "paper" if fresh else "identity"} | (attention_options or {})
        model = build_ours(name, num_classes, ndim, attention, chosen, **options)
    else:
        if library in LIBRARIES:
            if ndim not in (None, has := LIBRARIES[library].rank(short)):
                kind = "images" if has == 2 else "clips"
                raise ValueError(f"{name} is a network of {kind} (ndim={has}), got ndim={ndim}")
            build = partial(LIBRARIES[library].build, short)
        elif is_class_path(name):
            build = _class_at(name)
        elif name in _REGISTERED:
            build = _REGISTERED[name]
        else:
            raise ValueError(unknown("model", name, list_models()))
        try:
            model = build(num_classes=num_classes, **options)
        except TypeError as error:  # an option that the network does not have
            if is_foreign(error):
                raise
            raise ValueError(f"{name}: {str(error).splitlines()[0]}") from None
    if name not in OURS and attention is not None:
        insert_attention(model, attention, **(attention_options or {}))
    if weights is not None:
        source = _find_weights(name, ndim, weights)
        report = load_weights(model, source)
        origin = "the state dict" if isinstance(weights, Mapping) else weights
        _check_filled(
            report,
            model,
            _head(model, name, num_classes, ndim, options),
            f"{origin} does not fit {type(model).__name__}",
        )
        model.weights_report = report  # type: ignore[assignment]  # plain data beside the network's modules
    return model


def _check_filled(report: WeightsReport, model: nn.Module, head: Collection[str], misfit: str) -> None:
    """Raise InputError unless the weights cover the network, except for the head and attention that they lack.

    Args:
        report: of loading the weights.
        model: the network.
        head: its keys that depend on the number of classes.
        misfit: beginning of the error message.
    """
    names = {module: name for name, module in model.named_modules()}
    # prefix -> whether the block is CBAM, whose gates are optional
    blocks = {f"{names[one.block]}.": isinstance(one.block, CBAM) for one in list_insertions(model)}

    def part_of(key: str) -> str:
        """The gate or block that a parameter belongs to; empty for one of the network itself."""
        for prefix, has_gates in blocks.items():
            if key.startswith(prefix):
                return prefix + key.removeprefix(prefix).partition(".")[0] if has_gates else prefix
        return ""

    given = model.state_dict().keys() - set(report.new)
    begun = {part_of(key) for key in given if not key.endswith("num_batches_tracked")}
    for key in report.new:
        absent = part_of(key) and (part_of(key) not in begun or key.endswith(".scale"))
        if key not in head and not absent:
            raise InputError(f"{misfit}: it has no {key}")
    for key, reason in report.skipped.items():
        if report.misfits.get(key) not in head:
            raise InputError(f"{misfit}: {key}: {reason}")


def _head(model: nn.Module, name: str, num_classes: int, ndim: int | None, options: dict[str, Any]) -> set[str]:
    """The keys of a network that depend on the number of classes."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                other = create_model(name, num_classes + 1, ndim, "none", **options)
        except Exception:  # a network that computes in its constructor
            other = create_model(name, num_classes + 1, ndim, "none", **options)
    shapes = {key: value.shape for key, value in other.state_dict().items()}
    return {key for key, value in model.state_dict().items() if shapes.get(key, value.shape) != value.shape}


def _class_at(path: str) -> type[nn.Module]:
    """Import the class package.module:Class.

    Raises:
        ValueError: no such module or class, or not a network.
    """
    module, _, name = path.partition(":")
    try:
        found = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name is None or not module.startswith(error.name):  # an import within the module
            raise
        raise ValueError(f"{path}: no module {error.name!r} to import") from None
    except AttributeError:
        raise ValueError(f"{path}: no {name!r} in {module}") from None
    if not (isinstance(found, type) and issubclass(found, nn.Module)):
        raise ValueError(f"{path} is not a subclass of torch.nn.Module")
    return found


def _find_weights(name: str, ndim: int | None, weights: Any) -> Any:
    """Resolve weights to what `load_weights` takes: a path, a state dict, or a member of a weights enum."""
    if not isinstance(weights, (str, Path)):
        return weights
    text = str(weights)
    if text.startswith("hf:"):
        return download(text.removeprefix("hf:")) / WEIGHTS
    if (last := Path(text) / "checkpoints" / "last.ckpt").is_file():  # the folder of a run
        return last
    if Path(text).is_file() or "/" in text or Path(text).suffix:
        return Path(text)
    library, _, short = name.rpartition("/")
    if library == "":
        short = _SAME_AS_TORCHVISION.get((ndim, name), "")
    if library not in ("", "torchvision") or not short:
        raise ValueError(f"{name} with ndim={ndim} has no named weights, got {text!r}: give a file")
    return LIBRARIES["torchvision"].find_weights(short, text)
