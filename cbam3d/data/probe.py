"""Decoding a whole file once: what can be trusted of it, and a copy that decodes faster."""

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import chain
from pathlib import Path

import numpy as np
from av import VideoFrame
from av.error import FFmpegError

from cbam3d.data.container import Deadline, VideoError, open_video, reason_of
from cbam3d.data.decode import all_frames
from cbam3d.data.encode import write_video
from cbam3d.data.fingerprint import THUMBNAIL, fingerprint
from cbam3d.data.pixels import grey_thumbnail, upright_size, write_rgb
from cbam3d.errors import InputError

_THUMBNAIL_EVERY = 8  # frames


@dataclass(frozen=True)
class VideoInfo:
    """Sizes are those of the upright picture; times in seconds.

    `problem` is empty for a good file. A damaged file with some readable frames has both, frames and problem.
    """

    num_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    duration_seconds: float = 0.0
    problem: str = ""
    fingerprint: bytes = b""  # see fingerprint.py


@dataclass(frozen=True)
class Copy:
    """A copy to write while a file is read: every frame, upright, without sound, at a constant rate.

    Args:
        path: ends in .avi; the copy is MPEG-4 Part 2 without B-frames, the quickest to decode of what was measured.
        short_side: pixels; a smaller picture keeps its size.
        gop: frames from keyframe to keyframe.
    """

    path: Path
    short_side: int
    gop: int

    def size(self, height: int, width: int) -> tuple[int, int]:
        """Height and width of the copy, even numbers."""
        scale = min(1.0, self.short_side / min(height, width))
        return max(2, 2 * round(height * scale / 2)), max(2, 2 * round(width * scale / 2))


def probe_video(path: str | os.PathLike[str], timeout_seconds: float = 600.0, copy: Copy | None = None) -> VideoInfo:
    """Decode a whole file, in `timeout_seconds` at most. Never raises for a bad file: see `problem`.

    Raises:
        InputError: the copy cannot be written.
    """
    errors: list[str] = []
    count = _Count()
    deadline = Deadline(path, timeout_seconds)
    try:
        with open_video(path, deadline) as (container, stream):
            frames = count.over(all_frames(container, stream, deadline, errors))
            first = next(frames, None)
            if first is None:
                return VideoInfo(problem=f"no frame can be decoded{f' ({errors[0]})' if errors else ''}")
            height, width = upright_size(first)
            known = stream.average_rate or stream.guessed_rate
            rate = Fraction(known.numerator, known.denominator) if known else Fraction(0)
            if copy is None:
                deque(frames, maxlen=0)
            else:
                _write_copy(copy, chain([first], frames), copy.size(height, width), rate or Fraction(25))
    except VideoError as error:
        return VideoInfo(problem=error.reason)
    problems = [f"{len(errors)} unreadable packets ({errors[0]})"] if errors else []
    problems += [f"{count.corrupt} corrupt frames"] if count.corrupt else []
    return VideoInfo(
        count.frames,
        float(rate),
        width,
        height,
        float(count.frames / rate) if rate else 0.0,
        ", ".join(problems),
        fingerprint(count.thumbnails),
    )


class _Count:
    """What is noted of the frames that pass."""

    def __init__(self) -> None:
        self.frames = self.corrupt = 0
        self.thumbnails: list[np.ndarray] = []

    def over(self, frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
        for frame in frames:
            if self.frames % _THUMBNAIL_EVERY == 0:
                self.thumbnails.append(grey_thumbnail(frame, THUMBNAIL))
            self.frames += 1
            self.corrupt += frame.is_corrupt
            yield frame


def _write_copy(copy: Copy, frames: Iterator[VideoFrame], size: tuple[int, int], rate: Fraction) -> None:
    def pictures() -> Iterator[np.ndarray]:
        planes = np.empty((3, *size), np.uint8)
        for frame in frames:
            write_rgb(frame, planes)
            yield np.ascontiguousarray(planes.transpose(1, 2, 0))

    options = {"qmin": "2", "qmax": "2", "g": str(copy.gop), "bf": "0"}
    try:
        copy.path.parent.mkdir(parents=True, exist_ok=True)
        write_video(copy.path, pictures(), rate.limit_denominator(1001), "mpeg4", **options)
    except (FFmpegError, OSError) as error:
        raise InputError(f"{copy.path}: cannot be written ({reason_of(error)})") from None
