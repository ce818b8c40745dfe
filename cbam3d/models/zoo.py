"""Every network by name: ours, torchvision's, pytorchvideo's and timm's."""

import warnings
from collections.abc import Callable, Collection, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.attention import CBAM, insert_attention, list_insertions
from cbam3d.errors import InputError, unknown
from cbam3d.models.download import WEIGHTS, download
from cbam3d.models.ours import OURS, attention_of, build_ours, usual_ndim
from cbam3d.models.weights import WeightsReport, load_weights

_PYTORCHVIDEO = ["slow_r50", "slowfast_r50", "x3d_xs", "x3d_s", "x3d_m", "r2plus1d_r50", "csn_r101"]
# the first of timm's, so that a ResNet of theirs is found; any other name of timm works as well
_TIMM = ["resnet18", "resnet50", "resnet50d"]
# torchvision's own weights for the networks that compute what ours do: (ndim, ours) -> its network
_SAME_AS_TORCHVISION: dict[tuple[int | None, str], str] = {(3, "resnet18"): "r3d_18"}
_SAME_AS_TORCHVISION |= {(2, f"resnet{depth}"): f"resnet{depth}" for depth in (18, 34, 50, 101, 152)}


def list_models() -> list[str]:
    """The names that `create_model` knows: ours, and `torchvision/…`, `pytorchvideo/…`, `timm/…`."""
    theirs = [f"torchvision/{name}" for names in _torchvision_names().values() for name in names]
    return [*OURS, *theirs, *(f"pytorchvideo/{n}" for n in _PYTORCHVIDEO), *(f"timm/{n}" for n in _TIMM)]


def check_model_name(name: str) -> None:
    """Raise ValueError for a name that is none of `list_models()`; the nearest is named. timm's are not looked up."""
    if name not in (known := list_models()) and not name.startswith("timm/"):
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
        name: one of `list_models()`.
        num_classes: size of the logits.
        ndim: 2 for images, 3 for clips. None is 3, but 2 for cbam_cnn and fast_cnn, and the network's own where it
            has one only.
        attention: one of `list_attentions()`, put into every block; "none" for a plain network. None is
            what the network is known with: cbam for cbam_cnn, nothing for the others.
        attention_options: keyword arguments of the mechanism; in networks other than ours also those of
            `insert_attention`, such as position. init is "identity" unless chosen, in a fresh network of
            ours "paper". num_frames of tam is that of the network's input.
        weights: None for a fresh network; a path; the name of torchvision's weights ("KINETICS400_V1",
            "IMAGENET1K_V1", "DEFAULT"), for torchvision's networks and those of ours that equal one; or
            "hf:owner/name" for a repository of the Hugging Face hub (extra `hub`). They must fill the network, but
            for a head of other classes and attention that they do not have. What became of them is kept as the
            attribute `weights_report`.
        options: keyword arguments of the network (`ResNet`'s width, stem_pool, …).

    Raises:
        ValueError: an unknown name or option (the nearest known one is named), a refused value, or weights
            that are not there or do not fit.
    """
    attention = attention_of(name, attention)
    if attention is None and attention_options:
        raise ValueError(f"attention_options without attention: {', '.join(attention_options)}")
    library, _, short = name.rpartition("/")
    builders: dict[str, Callable[..., nn.Module]] = {
        "torchvision": _build_torchvision,
        "pytorchvideo": _build_pytorchvideo,
        "timm": _build_timm,
    }
    if name in OURS:
        ndim = usual_ndim(name) if ndim is None else ndim
        # an outer sum cannot start as the identity; without weights there is nothing to keep
        fresh = weights is None or (attention_options or {}).get("residual", False)
        chosen = {"init": "paper" if fresh else "identity"} | (attention_options or {})
        model = build_ours(name, num_classes, ndim, attention, chosen, **options)
    elif library in builders:
        try:
            model = builders[library](short, num_classes, ndim, **options)
        except TypeError as error:  # an option that the network does not have
            raise ValueError(f"{name}: {str(error).splitlines()[0]}") from None
    else:
        raise ValueError(unknown("model", name, list_models()))
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
    """Refuse weights that left more of the network as it was than the head, and attention that they do not have.

    Args:
        report: what became of the weights.
        model: the network.
        head: its keys that depend on the number of classes.
        misfit: how a refusal begins.
    """
    names = {module: name for name, module in model.named_modules()}
    # prefix -> the block is CBAM, whose gates may be there or not
    blocks = {f"{names[one.block]}.": isinstance(one.block, CBAM) for one in list_insertions(model)}

    def part_of(key: str) -> str:
        """The gate, or the block, that a parameter belongs to; empty for one of the network itself."""
        for prefix, has_gates in blocks.items():
            if key.startswith(prefix):
                return prefix + key.removeprefix(prefix).partition(".")[0] if has_gates else prefix
        return ""

    given = model.state_dict().keys() - set(report.new)
    begun = {part_of(key) for key in given if not key.endswith("num_batches_tracked")}
    for key in report.new:
        absent = part_of(key) and (part_of(key) not in begun or key.endswith(".scale"))
        if key not in head and not absent:
            raise InputError(f"{misfit}: it does not give {key}")
    for key, reason in report.skipped.items():
        if report.misfits.get(key) not in head:
            raise InputError(f"{misfit}: {key}: {reason}")


def _head(model: nn.Module, name: str, num_classes: int, ndim: int | None, options: dict[str, Any]) -> set[str]:
    """The keys of a network that depend on the number of classes."""
    with torch.random.fork_rng(devices=[]):
        try:
            with torch.device("meta"):
                other = create_model(name, num_classes + 1, ndim, "none", **options)
        except Exception:  # a network that computes as it is built
            other = create_model(name, num_classes + 1, ndim, "none", **options)
    shapes = {key: value.shape for key, value in other.state_dict().items()}
    return {key for key, value in model.state_dict().items() if shapes.get(key, value.shape) != value.shape}


def _torchvision_names() -> dict[int, list[str]]:
    """torchvision's classifiers by rank."""
    models = import_module("torchvision.models")
    return {2: models.list_models(module=models), 3: models.list_models(module=models.video)}


def _build_torchvision(name: str, num_classes: int, ndim: int | None, **options: Any) -> nn.Module:
    names = _torchvision_names()
    if name not in names[2] + names[3]:
        raise ValueError(unknown("model", f"torchvision/{name}", list_models()))
    _check_ndim(f"torchvision/{name}", 2 if name in names[2] else 3, ndim)
    return import_module("torchvision.models").get_model(name, weights=None, num_classes=num_classes, **options)


def _build_pytorchvideo(name: str, num_classes: int, ndim: int | None, **options: Any) -> nn.Module:
    if name not in _PYTORCHVIDEO:
        raise ValueError(unknown("model", f"pytorchvideo/{name}", list_models()))
    _check_ndim(f"pytorchvideo/{name}", 3, ndim)
    with warnings.catch_warnings():  # its last release predates what today's PyTorch deprecates
        warnings.simplefilter("ignore")
        hub = import_module("pytorchvideo.models.hub")
        model = getattr(hub, name)(pretrained=False, model_num_class=num_classes, **options)
    if name.startswith("slowfast"):
        model._pathways_handle = model.register_forward_pre_hook(_to_pathways)
    return model


def _build_timm(name: str, num_classes: int, ndim: int | None, **options: Any) -> nn.Module:
    try:
        timm = import_module("timm")
    except ImportError:
        raise InputError(f"timm/{name} needs timm: pip install timm") from None
    _check_ndim(f"timm/{name}", 2, ndim)
    if name not in timm.list_models():
        raise ValueError(unknown("model", name, timm.list_models()))
    return timm.create_model(name, num_classes=num_classes, **options)


def _to_pathways(model: nn.Module, inputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """SlowFast's two pathways from one clip: every fourth frame, and every frame. A list is left as it is."""
    (clip,) = inputs
    return ([clip[:, :, ::4], clip],) if isinstance(clip, Tensor) else inputs


def _check_ndim(name: str, has: int, asked: int | None) -> None:
    if asked not in (None, has):
        raise ValueError(f"{name} is a network of {'images' if has == 2 else 'clips'} (ndim={has}), got ndim={asked}")


def _find_weights(name: str, ndim: int | None, weights: Any) -> Any:
    """What `load_weights` takes: a path, a state dict, or a member of a weights enum."""
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
        raise ValueError(f"{name} with ndim={ndim} has no weights by name, got {text!r}: give a file")
    members = import_module("torchvision.models").get_model_weights(short).__members__
    if text not in members:
        raise ValueError(unknown(f"weights of {name}", text, members))
    return members[text]
