"""A trained network for elsewhere: a torch.export program or ONNX, checked, with what it expects beside it."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.engine.records import write_json
from cbam3d.errors import InputError, unknown
from cbam3d.files import atomic_write, make_folder, writing
from cbam3d.runs.checkpoint import Checkpoint
from cbam3d.runs.network import input_shape

_SUFFIXES = {"torch": ".pt2", "onnx": ".onnx"}
_TOLERANCE = 1e-3  # of logits, relative to the largest
_BATCHES = (1, 3)  # sizes of the random batches that the exported network is held against the original with


def export(saved: Checkpoint, format: str, path: Path | None = None, **options: Any) -> tuple[Path, float]:
    """See `Run.export`; `options` are those of `Checkpoint.model`."""
    if format not in _SUFFIXES:
        raise InputError(unknown("format", format, _SUFFIXES))
    suffix = _SUFFIXES[format]
    path = saved.folder / "export" / f"model{suffix}" if path is None else path
    if path.suffix != suffix:
        raise InputError(f"{path}: --format {format} writes files that end in {suffix}")
    make_folder(path.parent)
    # weights in channels-last format are saved right, with a warning that they are incomplete
    model = saved.model(**options).to(memory_format=torch.contiguous_format)
    shape = input_shape(saved.config, saved.images)
    write = {"torch": write_program, "onnx": write_onnx}[format]
    with atomic_write(path) as unfinished:
        with writing(path):
            unfinished.touch()  # before minutes are spent
        run = write(model, shape, unfinished)
        difference = largest_difference(model, run, shape)
        if not difference <= _TOLERANCE:
            text = f"the exported network differs from the original by {difference:.2g} of its logits"
            raise InputError(f"{path}: {text}")
    write_json(path.with_suffix(".json"), input_facts(saved, shape))
    return path, difference


def write_program(model: nn.Module, shape: tuple[int, ...], path: Path) -> Callable[[Tensor], Tensor]:
    """Write a program of torch.export; returns the function that a reader of the file gets."""
    batch = torch.export.Dim("batch", min=1, max=4096)
    program = torch.export.export(model, (torch.zeros(2, *shape),), dynamic_shapes=({0: batch},))
    torch.export.save(program, path)
    return torch.export.load(path).module()


def write_onnx(model: nn.Module, shape: tuple[int, ...], path: Path) -> Callable[[Tensor], Tensor]:
    """Write ONNX, input "input" and output "logits"; returns the function that a reader of the file gets.

    Raises:
        InputError: the extra `export` is not installed.
    """
    try:
        import_module("onnxscript")
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise InputError(f'--format onnx needs {error.name}: pip install "cbam3d[export]"') from None
    batch = torch.export.Dim("batch", min=1, max=4096)
    torch.onnx.export(
        model,
        (torch.zeros(2, *shape),),
        path,
        input_names=["input"],
        output_names=["logits"],
        dynamic_shapes=({0: batch},),
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda x: torch.from_numpy(session.run(None, {"input": x.numpy()})[0])


@torch.no_grad()
def largest_difference(model: nn.Module, other: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> float:
    """Of the logits of random batches, relative to the largest logit; the batches differ in size."""
    generator = torch.Generator().manual_seed(0)
    worst = 0.0
    for size in _BATCHES:
        x = torch.randn(size, *shape, generator=generator)
        expected = model(x)
        worst = max(worst, float((other(x) - expected).abs().max() / expected.abs().max().clamp_min(1e-6)))
    return worst


def input_facts(saved: Checkpoint, shape: tuple[int, ...]) -> dict[str, Any]:
    """What the exported network expects, and what its outputs mean."""
    data, activation = saved.config.data, "sigmoid" if saved.config.classes_apart else "softmax"
    facts: dict[str, Any] = {
        "input": {"name": "input", "shape": ["batch", *shape], "dtype": "float32", "colours": "RGB"},
        "output": {"name": "logits", "shape": ["batch", len(saved.classes)], "probabilities": activation},
        "short_side": data.short_side,
        "size": data.model_dump(mode="json")["size"],
        "mean": list(data.scaling[0]),
        "std": list(data.scaling[1]),
        "preprocessing": "scale so that the shorter side has short_side pixels, or more where size would not fit, crop "
        "to size (height and width), divide by 255, subtract mean and divide by std, colour by colour",
        "classes": saved.classes,
        "network": saved.config.model.name,
        "attention": saved.config.model.attention,
        "checkpoint": str(saved.path),
    }
    facts |= {"crops": saved.config.eval.num_crops, "mirrored_too": saved.config.scores_mirrored}
    facts["preprocessing"] += (
        "; crops: one at the centre, or several along the side with more room, evenly spaced; "
        f"average the {activation} over the crops and, "
        "with mirrored_too, their mirror images"
    )
    if saved.images:
        facts["preprocessing"] = f"cut the middle square, {facts['preprocessing']}"
    else:
        facts |= {"num_frames": data.num_frames, "stride": data.stride, "fps": data.fps, "sampling": data.sampling}
        facts |= {"clips_a_video": saved.config.eval.num_clips, "short_videos": data.short_videos}
        facts["preprocessing"] += f"; average the {activation} over clips spread evenly over the video"
    if saved.thresholds is not None:
        facts["thresholds"] = saved.thresholds.tolist()
    return facts
