"""Networks by name: this package's, those of libraries, and the user's own."""

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from importlib import import_module
from typing import Any, Literal, get_args

import torch
from torch import nn

from cbam3d.attention import attention_options, create_head, insert_attention
from cbam3d.attention.nd import check_ndim
from cbam3d.errors import is_foreign, reason_of, unknown
from cbam3d.models.frames import FrameNetwork
from cbam3d.models.headed import HeadedNetwork, cut
from cbam3d.models.inflate import inflate
from cbam3d.models.libraries import LIBRARIES
from cbam3d.models.ours import OURS, attention_of, build_ours, chooses_what_it_reads, network_options, usual_ndim
from cbam3d.models.pretrained import check_filled, find_weights, inner_name, split_name
from cbam3d.models.weights import Match, load_weights
from cbam3d.plugins import Registry

AsVideo = Literal["frames", "differences", "inflate"]
networks = Registry("models", "network", {}, reserved=OURS)  # beside this package's and the libraries'


def list_models() -> list[str]:
    """Names that `create_model` accepts: built-in, of plugins, registered, and `torchvision/…`, `pytorchvideo/…`,
    `timm/…`.

    Beside these it takes any other network of timm, and `hf/…`, a repository of the Hugging Face Hub or a local folder
    of its files.

    Examples:
        >>> from cbam3d import list_models
        >>> "torchvision/r3d_18" in list_models()
        True
    """
    theirs = [f"{library}/{name}" for library, adapter in LIBRARIES.items() for name in adapter.names()]
    return [*OURS, *(name for name in networks.names() if name not in OURS), *theirs]


def register_model(name: str, build: Callable[..., nn.Module]) -> None:
    """Register a network by name for `create_model` and for `model.name` of a configuration.

    Args:
        name: lower case, with underscores; not one of `list_models()`.
        build: a class or function, called with num_classes=… and the options of the configuration. The network maps
            (N, 3, *S) to logits (N, num_classes).

    Raises:
        ValueError: a name that is taken or malformed.

    Examples:
        >>> from cbam3d import create_model, register_model
        >>> def tiny(num_classes):
        ...     layers = torch.nn.AdaptiveAvgPool3d(1), torch.nn.Flatten(), torch.nn.Linear(3, num_classes)
        ...     return torch.nn.Sequential(*layers)
        >>> register_model("tiny", tiny)
        >>> create_model("tiny", 10)(torch.randn(2, 3, 8, 32, 32)).shape
        torch.Size([2, 10])
    """
    networks.add(name, build)


def is_local_model(name: str) -> bool:
    """Whether only this process knows a network: registered here, or a class of the script."""
    return networks.is_local(name) or name.startswith("__main__:")


def is_class_path(name: str) -> bool:
    """Whether a name is a class path: package.module:Class."""
    return ":" in name


def needs_import(name: str) -> bool:
    """Whether building a network would import a module: its name is a class path, and nobody has imported that yet."""
    return is_class_path(name) and name.partition(":")[0] not in sys.modules


def check_model_name(name: str) -> None:
    """Raise ValueError for a name not in `list_models()`, suggesting the closest. Names of timm and of the Hub are
    not looked up, and classes are not imported."""
    if name not in (known := list_models()) and not name.startswith(("timm/", "hf/")) and not is_class_path(name):
        raise ValueError(unknown("model", name, known))


def create_model(
    name: str,
    num_classes: int,
    ndim: int | None = None,
    attention: str | None = None,
    attention_options: dict[str, Any] | None = None,
    weights: Any = None,
    weights_match: Match = "name",
    as_video: AsVideo | None = None,
    head: str | None = None,
    head_options: dict[str, Any] | None = None,
    **options: Any,
) -> nn.Module:
    """Build a network by name.

    Args:
        name: one of `list_models()`, or a class as package.module:Class, called with num_classes=… and the options.
        num_classes: size of the logits.
        ndim: 2 for images, 3 for clips. None selects 3, but 2 for cbam_cnn, fast_cnn, draw and ram, and a library
            network's own rank.
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
        weights_match: "name", or "order" for a file whose names differ (see `load_weights`).
        as_video: how an image network takes clips (ndim=3): "frames" runs it on every frame and averages the
            logits (`FrameNetwork`); "differences" likewise, on what changes from frame to frame; "inflate" turns its
            layers into three-dimensional ones (`inflate`); of this package's ResNets it is the three-dimensional form,
            with the stem of images. None selects frames, but the three-dimensional form of this package's own networks.
        head: one of `list_heads()`, in place of the network's own; None keeps that.
        head_options: keyword arguments of the head; and grid, see `HeadedNetwork`.
        options: keyword arguments of the network (`ResNet`'s width, stem_pool, …).

    Raises:
        ValueError: an unknown name or option (the message suggests the closest), an invalid value, or weights
            that are missing or do not fit.

    Examples:
        >>> from cbam3d import create_model
        >>> model = create_model("resnet18", 101, ndim=3, attention="cbam", width=16)
        >>> model(torch.randn(1, 3, 8, 32, 32)).shape
        torch.Size([1, 101])
    """
    attention = attention_of(name, attention)
    if attention is None and attention_options:
        raise ValueError(f"attention_options without attention: {', '.join(attention_options)}")
    if head is None and head_options:
        raise ValueError(f"head_options without head: {', '.join(head_options)}")
    if name in OURS and chooses_what_it_reads(name) and (head is not None or as_video is not None):
        raise ValueError(
            f"{name} has neither another head nor as_video: it chooses what it reads, also of clips (ndim=3)"
        )
    of_images = as_video is not None
    if name in OURS and as_video == "inflate" and "stem_pool" in network_options(name):
        options = {"stem_pool": True} | options  # as the network of images has it
    ndim, as_video = _rank(name, ndim, as_video)
    chosen = dict(attention_options or {})
    if name in OURS:
        # an outer sum cannot start as the identity; without weights there is nothing to preserve
        fresh = weights is None or chosen.get("residual", False)
        chosen = {"init": "paper" if fresh else "identity"} | chosen
    in_slots = attention if name in OURS and as_video is None else None
    build = partial(_plain, name, ndim=2 if as_video else ndim, attention=in_slots, chosen=chosen, options=options)
    model = build(num_classes)
    source = None if weights is None else find_weights(name, 2 if of_images or as_video else ndim, weights)
    report = None
    if source is not None and weights_match == "order":
        report = load_weights(model, source, match="order")
    own_head = set() if head is None and weights is None else _class_keys(model, build, num_classes)
    before = set(model.state_dict())
    if as_video == "inflate":
        model = inflate(model)
    channels = 0 if head is None else cut(model, own_head)
    removed = before - set(model.state_dict())
    if as_video in ("frames", "differences"):
        model = FrameNetwork(model, as_video == "differences")
    if head is not None:
        others = dict(head_options or {})
        grid = others.pop("grid", None)
        model = HeadedNetwork(model, create_head(head, channels, num_classes, **others), grid)
    if attention is not None and in_slots is None:
        _insert(model, attention, chosen)
    if source is not None:
        filled = load_weights(model, source) if report is None else replace(report, new=_new(model, before, report.new))
        origin = "the state dict" if isinstance(weights, Mapping) else weights
        check_filled(filled, model, own_head, removed, f"{origin} does not fit {type(model).__name__}")
        model.weights_report = filled  # type: ignore[assignment]  # plain data beside the network's modules
    return model


def _rank(name: str, ndim: int | None, as_video: AsVideo | None) -> tuple[int | None, AsVideo | None]:
    """The rank of a network's input, and how it takes clips where it is one of images; None where it is not.

    Raises:
        ValueError: no such network, or a rank that it does not have.
    """
    if as_video not in (None, *get_args(AsVideo)):
        raise ValueError(f"as_video must be one of {', '.join(get_args(AsVideo))}, got {as_video!r}")
    if as_video is not None:
        if ndim == 2:
            raise ValueError(f"as_video {as_video!r} is for clips (ndim=3), got ndim=2")
        ndim = 3
    library, short = split_name(name)
    if name in OURS:
        ndim = usual_ndim(name) if ndim is None else ndim
        return ndim, as_video if as_video != "inflate" and ndim == 3 else None  # they have a three-dimensional form
    if library not in LIBRARIES:
        if as_video is not None:
            raise ValueError(f"{name} takes what its code takes: as_video is for image networks")
        return ndim, None
    has = LIBRARIES[library].rank(short)
    if ndim in (None, has):
        if as_video is not None and has == 3:
            raise ValueError(f"{name} is a network of clips: as_video is for image networks")
        return has, None
    if has == 3:
        raise ValueError(f"{name} is a network of clips (ndim=3), got ndim={ndim}")
    return check_ndim(ndim), as_video or "frames"


def _plain(
    name: str,
    num_classes: int,
    ndim: int | None,
    attention: str | None,
    chosen: dict[str, Any],
    options: dict[str, Any],
) -> nn.Module:
    """A network as it is in its library; of this package's own, with attention in its slots."""
    library, short = split_name(name)
    if name in OURS:
        return build_ours(name, num_classes, ndim or usual_ndim(name), attention, chosen, **options)
    if library in LIBRARIES:
        build = partial(LIBRARIES[library].build, short)
    elif is_class_path(name):
        build = _class_at(name)
    elif name in networks.names():
        build = networks.find(name)
    else:
        raise ValueError(unknown("model", name, list_models()))
    try:
        return build(num_classes=num_classes, **options)
    except TypeError as error:  # an option that the network does not have
        if is_foreign(error):
            raise
        raise ValueError(f"{name}: {reason_of(error)}") from None


def _insert(model: nn.Module, attention: str, chosen: dict[str, Any]) -> None:
    """Insert attention; blocks for a fixed number of frames get that of their features, where the input has as many."""
    others = dict(chosen)
    example = None
    if "num_frames" in attention_options(attention) and isinstance(others.get("num_frames"), int):
        example = torch.zeros(1, 3, others.pop("num_frames"), 224, 224)
    insert_attention(model, attention, example=example, **others)


def _new(model: nn.Module, before: Collection[str], new: Collection[str]) -> list[str]:
    """Keys of a network that were not filled while it was another: with the keys `before`, of which `new` were not."""
    filled = {inner_name(key) for key in set(before) - set(new)}
    return [
        key for key in model.state_dict() if inner_name(key) not in filled and not key.endswith("num_batches_tracked")
    ]


def _class_keys(model: nn.Module, build: Callable[[int], nn.Module], num_classes: int) -> set[str]:
    """The keys of a network that depend on the number of classes."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                other = build(num_classes + 1)
        except Exception:  # a network that computes in its constructor
            other = build(num_classes + 1)
    shapes = {key: value.shape for key, value in other.state_dict().items()}
    return {key for key, value in model.state_dict().items() if shapes.get(key, value.shape) != value.shape}


def _class_at(path: str) -> type[nn.Module]:
    """Import the class package.module:Class.

    Raises:
        ValueError: no such module or class, or not a network.
    """
    module, _, name = path.partition(":")
    if "" not in sys.path:
        sys.path.append("")  # it may lie in the working directory
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
