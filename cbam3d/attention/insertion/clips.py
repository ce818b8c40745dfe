"""Attention over clips inside an image network.

An image network runs on the frames of N clips as on a batch of N·T images. What is inserted into it sees the clips
again: (N·T, C, h, w) -> (N, C, T, h, w), and back behind it.
"""

from typing import Any

from torch import Tensor, nn


class ClipFrames:
    """The number of frames of the clips on which an image network runs, which its output does not show.

    `num_frames` is set before each pass, by the network that owns this object as the attribute `clip_frames`.
    """

    def __init__(self) -> None:
        self.num_frames = 1

    def to_clips(self, frames: Tensor) -> Tensor:
        """(N·T, C, *S) -> (N, C, T, *S)."""
        return frames.unflatten(0, (-1, self.num_frames)).transpose(1, 2)

    def to_frames(self, clips: Tensor) -> Tensor:
        """(N, C, T, *S) -> (N·T, C, *S)."""
        return clips.transpose(1, 2).flatten(0, 1)

    def show_clips_to(self, block: nn.Module) -> None:
        """Let a block for clips run within the image network: hooks turn its input and output."""
        block.register_forward_pre_hook(self._before)
        block.register_forward_hook(self._after)

    def _before(self, block: nn.Module, args: Any) -> Tensor:
        return self.to_clips(args[0])

    def _after(self, block: nn.Module, args: Any, output: Tensor) -> Tensor:
        return self.to_frames(output)


def clip_frames_of(model: nn.Module, name: str) -> ClipFrames | None:
    """Of the innermost module around `name` that runs an image network on clips; None where there is none."""
    parts = name.split(".")
    for end in range(len(parts), -1, -1):
        found = getattr(model.get_submodule(".".join(parts[:end])), "clip_frames", None)
        if isinstance(found, ClipFrames):
            return found
    return None
