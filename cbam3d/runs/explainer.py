"""Where a trained network looks: the maps of its attention, and Grad-CAM."""

import importlib.util
import logging
from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cbam3d.attention.insertion.clips import clip_frames_of
from cbam3d.attention.maps import attention_maps
from cbam3d.errors import InputError, unknown
from cbam3d.models.headed import HeadedNetwork
from cbam3d.runs.explanation import Explanation
from cbam3d.runs.predictor import Predictor

logger = logging.getLogger(__name__)


class Explainer:
    """Explains what a predictor makes of files.

    Args:
        predictor: trained; its central clip and crop are explained.
        blocks: patterns of the names of blocks, such as "layer4.*"; all where there is none.
        layer: a module whose output Grad-CAM weighs; None for the last one with positions.
        grad_cam: whether to compute it; None where captum is installed.

    Raises:
        InputError: a layer or a pattern that the network does not have.
    """

    def __init__(
        self, predictor: Predictor, blocks: Sequence[str] = (), layer: str | None = None, grad_cam: bool | None = None
    ) -> None:
        config = predictor.config.override({"eval": {"num_clips": 1, "num_crops": 1, "flip": False}})
        self.predictor = Predictor(predictor.model, predictor.classes, config, predictor.images, predictor.device)
        self.blocks = blocks
        has_captum = importlib.util.find_spec("captum") is not None
        if grad_cam is None and not has_captum:
            logger.warning('no Grad-CAM: captum is not installed (pip install "cbam3d[explain]")')
        self.grad_cam = has_captum if grad_cam is None else grad_cam
        names = [name for name, _ in predictor.model.named_modules() if name]
        if layer is not None and layer not in names:
            raise InputError(f"explain: {unknown('layer', layer, names)}")
        self.layer = layer

    def __call__(self, path: str | Path, target: str | None = None) -> Explanation:
        """Explain a file.

        Args:
            path: a video or an image.
            target: the class that Grad-CAM asks for; None for the most probable one.

        Raises:
            InputError: a file that cannot be read, an unknown class, or a network without a layer for Grad-CAM.
        """
        (view,) = self.predictor.views(path)
        return self.explain(view, target)

    def explain(self, view: Tensor, target: str | None = None, bare: bool = False) -> Explanation:
        """Explain a clip (or image) before cropping, uint8 (3, *S); `target` as above.

        `bare` accepts a network without maps, whose explanation is the frames and the classes.
        """
        predictor = self.predictor
        if target is not None and target not in predictor.classes:
            raise InputError(f"explain: {unknown('class', target, predictor.classes)}")
        inputs = predictor.inputs([view])
        with torch.no_grad():
            probabilities = predictor.activate(predictor.model(inputs).float())[0].cpu()
        best = predictor.best(probabilities, 5)
        target = best[0][0] if target is None else target
        grad_cam, layer = None, ""
        if self.grad_cam:
            try:
                self.layer = layer = self.layer or last_with_positions(predictor.model, inputs)  # for every file
                grad_cam = _grad_cam(predictor.model, layer, inputs, predictor.classes.index(target))
            except InputError:  # a network without such a layer
                if not bare:
                    raise
        maps = self._maps(inputs)
        if not maps and grad_cam is None and not bare:
            raise InputError("explain: the network has no attention with maps, and there is no Grad-CAM")
        return Explanation(self._frames(inputs), best, target, maps, grad_cam, layer)

    def _frames(self, inputs: Tensor) -> np.ndarray:
        data = self.predictor.config.data
        mean, std = (torch.tensor(values).reshape(3, 1, 1, 1) for values in data.scaling)
        clip = _with_time(inputs[0].cpu(), 3) * std + mean
        return (clip * 255).round().clip(0, 255).to(torch.uint8).permute(1, 2, 3, 0).numpy()

    def _maps(self, inputs: Tensor) -> dict[str, dict[str, np.ndarray]]:
        found = attention_maps(self.predictor.model, inputs)
        if found and self.blocks:
            chosen = {name: views for name, views in found.items() if any(fnmatchcase(name, p) for p in self.blocks)}
            if not chosen:
                raise InputError(f"explain: no block fits {', '.join(self.blocks)}; there are {', '.join(found)}")
            found = chosen
        return {
            name: {
                kind: (_with_time(one[0], 2) if kind == "spatial" else one[0]).cpu().numpy()
                for kind, one in views.items()
            }
            for name, views in found.items()
        }


def last_with_positions(model: nn.Module, inputs: Tensor) -> str:
    """The last module whose features have positions, in a network of convolutions: what Grad-CAM usually asks.

    Raises:
        InputError: there is none, or positions and channels may lie in another order.
    """
    found: list[str] = []

    def look(name: str, module: nn.Module, output: Any) -> None:
        if isinstance(module, nn.LayerNorm) and output.ndim > 2 and output.numel() > output.shape[-1] * len(inputs):
            found.clear()  # tokens: from here on channels may lie last
        if isinstance(output, Tensor) and (frames := clip_frames_of(model, name)) is not None and output.ndim == 4:
            output = frames.to_clips(output)
        if not isinstance(output, Tensor) or output.ndim != inputs.ndim or len(output) != len(inputs):
            return
        convolves = any(isinstance(part, nn.Conv2d | nn.Conv3d) for part in module.modules())
        layer_norms = any(isinstance(part, nn.LayerNorm) for part in module.modules())
        if convolves and not layer_norms and max(output.shape[3:]) > 1:
            found.append(name)

    handles = [
        module.register_forward_hook(lambda module, _, output, name=name: look(name, module, output))
        for name, module in model.named_modules()
        if name and not (isinstance(model, HeadedNetwork) and f"{name}.".startswith("head."))
    ]
    try:
        with torch.no_grad():
            model(inputs)
    finally:
        for handle in handles:
            handle.remove()
    if not found:
        raise InputError("explain: the network has no features with positions for Grad-CAM; name a --layer")
    return found[-1]


def _grad_cam(model: nn.Module, layer: str, inputs: Tensor, target: int) -> np.ndarray:
    """Grad-CAM, (T', H', W') (Selvaraju et al., ICCV 2017, https://arxiv.org/abs/1610.02391)."""
    from captum.attr import LayerGradCam

    module, calls = model.get_submodule(layer), []
    handle = module.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        model(inputs)
    handle.remove()
    if not calls:
        raise InputError(f"explain: {layer} is not called as a module of its own; name another --layer")
    found = LayerGradCam(model, module).attribute(inputs, target=target, relu_attributions=True)
    frames = clip_frames_of(model, layer)
    if isinstance(found, Tensor) and frames is not None and found.ndim == 4:
        found = frames.to_clips(found)
    if not isinstance(found, Tensor) or found.ndim != inputs.ndim:
        raise InputError(f"explain: the features of {layer} have no positions for Grad-CAM; name another --layer")
    return _with_time(found[0, 0].detach().float().cpu(), 2).numpy()


def _with_time(one: Tensor, ndim: int) -> Tensor:
    """An image's tensor of `ndim` axes with a time axis before height and width; a clip's as it is."""
    return one.unsqueeze(-3) if one.ndim == ndim else one
