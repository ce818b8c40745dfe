"""GPU tensors without a GPU: what would make a host wait, or a tensor be on the wrong device, is an error."""

from contextlib import contextmanager
from unittest.mock import patch

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from cbam3d.data import transforms


class Copies(TorchDispatchMode):
    """Counts the copies of tensors between host and device; one for which the host waits is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.number, self.allowed = 0, False

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func is torch.ops.aten._local_scalar_dense.default and args[0].device.type == "cpu":
            return 0.5 if args[0].is_floating_point() else 0  # of the host's own numbers, such as random ones
        out = func(*args, **kwargs)
        name, given = func.overloadpacket.__name__, [arg for arg in args if isinstance(arg, Tensor)]
        if isinstance(out, Tensor) and name in ("_to_copy", "copy_") and any(x.device != out.device for x in given):
            self.number += 1
            later = kwargs.get("non_blocking") or (name == "copy_" and len(args) > 2 and args[2])
            assert later or self.allowed, f"a copy for which the host waits: {tuple(out.shape)}"
        return out


@contextmanager
def fake_gpu():
    """Within it, tensors on "cuda" have shapes and no values; yields the counter of copies."""
    unpinned = patch.object(Tensor, "pin_memory", lambda self: self)
    with unpinned, FakeTensorMode(allow_non_fake_inputs=True), Copies() as copies:
        yield copies
    transforms._luma.cache_clear()
