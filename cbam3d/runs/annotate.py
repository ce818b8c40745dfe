"""Predictions written into the frames of a video."""

from collections import deque
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from cbam3d.video.encode import rate_of_file, video_writer
from cbam3d.video.stream import TimedFrame

_MOST_PIXELS = 480  # of the shorter side


class AnnotatedVideo:
    """A copy of a video with its classes over the frames, at a constant rate, its shorter side 480 pixels at most.

    Frames wait until it is known what they show.

    Args:
        path: of the file, which appears when it is complete.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.stack, self.text = path, ExitStack(), ""
        self.waiting: deque[tuple[float, np.ndarray]] = deque()
        self.write: Callable[[np.ndarray], None] | None = None

    def __enter__(self) -> "AnnotatedVideo":
        return self

    def see(self, timed: TimedFrame) -> None:
        """The next frame."""
        if self.write is None:
            self.write = self.stack.enter_context(video_writer(self.path, rate_of_file(timed.fps)))
        short_side = min(_MOST_PIXELS, *timed.size)
        self.waiting.append((timed.seconds, timed.scaled(short_side)))

    def show(self, until_seconds: float, classes: list[tuple[str, float]]) -> None:
        """What the frames before a moment show: classes with probabilities, best first."""
        self.text = "   ".join(f"{name} {probability:.0%}" for name, probability in classes[:3])
        while self.waiting and self.waiting[0][0] < until_seconds:
            self._write(self.waiting.popleft()[1])

    def _write(self, pixels: np.ndarray) -> None:
        _, height, width = pixels.shape
        even = pixels[:, : height // 2 * 2, : width // 2 * 2]  # as the encoder requires
        picture = Image.fromarray(np.ascontiguousarray(even.transpose(1, 2, 0)))
        size = max(8, picture.height // 20)
        draw = ImageDraw.Draw(picture, "RGBA")
        draw.rectangle((0, picture.height - 2 * size, picture.width, picture.height), fill=(0, 0, 0, 140))
        corner = (size // 2, picture.height - 1.7 * size)
        draw.text(corner, self.text, "white", ImageFont.load_default(size))
        assert self.write is not None  # since the first frame
        self.write(np.asarray(picture))

    def __exit__(self, *error: object) -> None:
        if error[0] is None:
            while self.waiting:  # after the last whole window
                self._write(self.waiting.popleft()[1])
        self.stack.__exit__(*error)  # type: ignore[arg-type]
