"""Transformers of video from Hugging Face: VideoMAE, TimeSformer, ViViT, V-JEPA 2 and what else `transformers` knows.

A name is a repository of the Hub, "MCG-NJU/videomae-base-finetuned-kinetics", or a folder with its files.
"""

import json
from importlib import import_module
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from cbam3d.errors import InputError
from cbam3d.models.libraries.own_input import OwnInput


class VideoTransformer(nn.Module):
    """A classifier of `transformers` that takes and returns tensors.

    Args:
        model: of `AutoModelForVideoClassification`.
        input_size: (T, H, W).

    Shapes: (N, 3, T, H, W) -> (N, K).
    """

    def __init__(self, model: nn.Module, input_size: tuple[int, int, int]) -> None:
        super().__init__()
        self.model, self.input_size = model, input_size
        self.argument: str = model.main_input_name  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return self.model(**{self.argument: x.transpose(1, 2)}).logits


def names() -> list[str]:
    """None is listed: every repository is a name."""
    return []


def rank(name: str) -> int:
    """All take clips."""
    return 3


def build(name: str, num_classes: int, **options: Any) -> nn.Module:
    """Build a network without weights; options are those of its configuration."""
    auto = _transformers(name)
    if code := {"trust_remote_code", "code_revision"} & options.keys():
        raise ValueError(f"hf/{name}: code of a repository is never run, {code.pop()} is no option")
    config = _read(name, auto.AutoConfig.from_pretrained, num_labels=num_classes, **options)
    try:
        model = auto.AutoModelForVideoClassification.from_config(config)
    except ValueError as error:  # of a kind that does not classify videos
        raise ValueError(f"hf/{name}: {str(error).partition(chr(10))[0]}") from None
    frames, size = _frames_and_size(config)
    return VideoTransformer(model, (frames, *((size, size) if isinstance(size, int) else size)))


def find_weights(name: str, member: str) -> dict[str, Tensor]:
    """A network's own weights, by the name "pretrained"."""
    if member != "pretrained":
        raise ValueError(f'weights of hf/{name} are "pretrained", or a file; got {member!r}')
    auto = _transformers(name).AutoModelForVideoClassification
    model, found = _read(name, auto.from_pretrained, output_loading_info=True)
    random = {*found["missing_keys"], *(key if isinstance(key, str) else key[0] for key in found["mismatched_keys"])}
    return {f"model.{key}": value for key, value in model.state_dict().items() if key not in random}


def own_input(name: str, member: str | None) -> OwnInput:
    """Frames, size, mean and standard deviation, from the network's own files."""
    config = _read(name, _transformers(name).AutoConfig.from_pretrained)
    frames, size = _frames_and_size(config)
    facts = _processor(name)
    mean, std = facts.get("image_mean"), facts.get("image_std")
    scaling = (tuple(mean), tuple(std)) if mean and std else (None, None)
    return OwnInput(*scaling, frames, size)


def _frames_and_size(config: Any) -> tuple[int, int | tuple[int, int]]:
    """Frames of a clip, and pixels."""
    frames = getattr(config, "num_frames", None) or getattr(config, "frames_per_clip", 16)
    size = getattr(config, "image_size", None) or getattr(config, "crop_size", 224)
    return frames, size if isinstance(size, int) else tuple(size)


def _processor(name: str) -> dict[str, Any]:
    """What the network's files say of preprocessing; nothing where there is no such file."""
    hub = import_module("transformers.utils.hub")
    for file in ("video_preprocessor_config.json", "preprocessor_config.json"):
        path = hub.cached_file(
            name,
            file,
            _raise_exceptions_for_missing_entries=False,
            _raise_exceptions_for_connection_errors=False,
        )
        if path is not None:
            return json.loads(Path(path).read_text())
    return {}


def _read(name: str, read: Any, **options: Any) -> Any:
    """Read a part of a repository, without running code that it holds.

    Raises:
        InputError: neither a folder nor a repository that can be read.
    """
    try:
        return read(name, trust_remote_code=False, **options)
    except Exception as error:  # of many types: no network, no such repository, no access, a damaged file
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"hf/{name}: neither a folder nor a repository that can be read ({reason}); without internet, download its "
            f"config.json, preprocessor_config.json and model.safetensors elsewhere into a folder, and give hf/FOLDER"
        ) from None


def _transformers(name: str) -> Any:
    try:
        return import_module("transformers")
    except ImportError:
        raise InputError(f'hf/{name} needs transformers: pip install "cbam3d[transformers]"') from None
