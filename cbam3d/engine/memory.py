"""Memory use of training, and errors that tell what to change when a step fails."""

import math
import sys
from pathlib import Path

import torch
from torch import Tensor

from cbam3d.errors import InputError, is_foreign


def peak_memory_gib(device: torch.device) -> float:
    """Peak memory so far: on the GPU, or of this process where the device is the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    if sys.platform == "win32":
        return math.nan
    status = Path("/proc/self/status")  # Linux: getrusage would count what the process was started from, too
    lines = status.read_text().splitlines() if status.is_file() else []
    if peaks := [int(line.split()[1]) for line in lines if line.startswith("VmHWM:")]:
        return peaks[0] / 2**20
    import resource  # absent from Windows

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**30 if sys.platform == "darwin" else 2**20)


def advise(error: Exception, inputs: Tensor, accumulate: int) -> Exception:
    """The error of a step, or one that states what to change where memory ran out or BatchNorm has a single value."""
    if "Expected more than 1 value per channel" in str(error):
        return InputError(
            f"BatchNorm needs more than one value a channel, but a process computes {len(inputs)} samples in "
            f"{accumulate} parts: raise train.batch_size or lower train.accumulate"
        )
    if isinstance(error, ValueError) and not is_foreign(error):  # of a network that checks its inputs
        return InputError(" ".join(str(error).split()))
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return error
    shape = "x".join(str(side) for side in inputs.shape[2:])
    return InputError(
        f"out of memory with {len(inputs)} samples of {shape} a process, computed in {accumulate} parts: raise "
        "train.accumulate (same result, more time), or lower train.batch_size, data.num_frames or data.size"
    )
