"""Steps of an optimiser that change nothing where loss or gradient are not finite, without waiting for the device."""

from typing import Any

import torch
from torch import Tensor, nn

from cbam3d.engine.optim import MovingAverage


class Update:
    """Takes the steps of an optimiser, and averages the weights.

    A fused optimiser, the usual one on GPUs, is told by the device whether to take a step. For another the host waits
    for the device, which costs nothing on a CPU.

    Args:
        optimizer: of `torch.optim`.
        model: whose buffers (running statistics) a forward pass changes.
        average: of the weights, or None.
        scaler: of the gradients, which skips steps itself; or None.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        model: nn.Module,
        average: MovingAverage | None,
        scaler: torch.amp.GradScaler | None,
    ) -> None:
        self.optimizer, self.model, self.average, self.scaler = optimizer, model, average, scaler
        self.buffers: dict[torch.dtype, list[Tensor]] = {}
        for buffer in model.buffers():
            self.buffers.setdefault(buffer.dtype, []).append(buffer)
        if self.on_device and isinstance(optimizer, torch.optim.SGD):
            _start_momentum(optimizer)
        self.before: dict[torch.dtype, Tensor] = {}  # the buffers, packed

    @property
    def on_device(self) -> bool:
        """Whether the device decides. A checkpoint may bring back an optimiser that is not fused."""
        groups = self.optimizer.param_groups
        return self.scaler is None and all(one.get("fused") and not one.get("dampening") for one in groups)

    def begin(self) -> None:
        """Remember what the forward pass is about to change."""
        self.before = self._packed()

    def take(self, step: Any, finite: Tensor) -> None:
        """Call `step`, the optimiser's, unless `finite`, (), is false: then nothing changes."""
        if self.on_device:
            self.optimizer.found_inf = (~finite).float()  # type: ignore[attr-defined]
            step()
            self._restore(finite)
        elif finite:
            step()
        else:
            self._restore(finite)
            if self.scaler is not None:
                self.scaler.update(self.scaler.get_scale())  # it may have unscaled gradients of a step that is over
            return
        if self.average is not None:
            self.average.update_parameters(self.model, finite)

    def _packed(self) -> dict[torch.dtype, Tensor]:
        return {dtype: torch.cat([one.flatten() for one in group]) for dtype, group in self.buffers.items()}

    @torch.no_grad()
    def _restore(self, finite: Tensor) -> None:
        for dtype, now in self._packed().items():
            group = self.buffers[dtype]
            kept = torch.where(finite, now, self.before[dtype]).split([one.numel() for one in group])
            copies = [part.view_as(one) for part, one in zip(kept, group, strict=True)]
            torch._foreach_copy_(group, copies)  # pyright: ignore[reportPrivateImportUsage]


def _start_momentum(optimizer: torch.optim.SGD) -> None:
    """Momentum from zeros, which is the same: a fused first step that is not taken leaves it uninitialised."""
    for group in optimizer.param_groups:
        for parameter in group["params"] if group["momentum"] else ():
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
