"""The precision that the hardware computes best."""

import torch
from torch import nn

from cbam3d.config import Config
from cbam3d.runs.network import GIVEN, build_model, build_skeleton, has_images

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def precision_of(config: Config, network: nn.Module | None = None) -> str:
    """`run.precision`; for "auto" bf16-mixed where the device computes bfloat16 natively, on a CPU only for a network
    without grouped convolutions, which are not faster in it; else 32-true.

    Args:
        config: of the run.
        network: in place of the one that the configuration names.
    """
    if config.run.precision != "auto":
        return config.run.precision
    device = device_type(config.run.accelerator)
    is_faster = computes_bfloat16(device) and (device != "cpu" or not _has_groups(config, network))
    return "bf16-mixed" if is_faster else "32-true"


def with_precision(config: Config, precision: str) -> Config:
    """The configuration with a precision, and the memory format that goes with it in place of null."""
    channels_last = config.run.channels_last
    if channels_last is None:
        channels_last = precision != "32-true"
    return config.override({"run.precision": precision, "run.channels_last": channels_last})


def device_type(accelerator: str) -> str:
    """cuda, mps or cpu: the kind of device that `run.accelerator` names here."""
    if accelerator in ("auto", "gpu", "cuda") and torch.cuda.is_available():
        return "cuda"
    return "mps" if accelerator in ("auto", "gpu", "mps") and torch.backends.mps.is_available() else "cpu"


def computes_bfloat16(device: str) -> bool:
    """Whether a kind of device has instructions for bfloat16."""
    if device == "cuda":
        return torch.cuda.get_device_capability() >= (8, 0)
    if device != "cpu" or not hasattr(torch.cpu, "get_capabilities"):  # PyTorch 2.9 does not tell
        return False
    known = torch.cpu.get_capabilities()
    return bool(known.get("avx512_bf16") or known.get("amx_bf16"))


def _has_groups(config: Config, network: nn.Module | None) -> bool:
    if network is None and config.model.name != GIVEN:
        network = build_skeleton(config)
        if network is None:
            network = build_model(config.override({"model.weights": None}), 2, has_images(config))
    modules = () if network is None else network.modules()
    return any(isinstance(module, _CONVOLUTIONS) and module.groups > 1 for module in modules)
