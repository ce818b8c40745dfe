"""PyAV: a file and frame numbers -> a clip, uint8 (C, T, H, W).

A frame's number is its place in presentation order, counted as the decoder puts frames out. Timestamps and
header counts are not asked: AVI files with packed B-frames (UCF101) have none that can be trusted.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import av
import av.logging
import numpy as np
import torch
from av.container import InputContainer
from av.error import FFmpegError
from av.video.reformatter import Interpolation, VideoReformatter
from torch import Tensor

from cbam3d.errors import InputError

av.logging.set_level(None)  # FFmpeg would write to stderr from C; what is wrong is raised or reported here
logging.getLogger("libav").setLevel(logging.CRITICAL)


class VideoError(InputError):
    """A video that cannot be used: one line, the file and the reason."""

    def __init__(self, path: str | os.PathLike[str], reason: str) -> None:
        super().__init__(f"{os.fspath(path)}: {reason}")
        self.path, self.reason = Path(path), reason

    def __reduce__(self) -> tuple:
        return VideoError, (self.path, self.reason)


@dataclass(frozen=True)
class VideoInfo:
    """What decoding a whole file tells: sizes are those of the upright picture; times in seconds.

    `problem` is empty for a good file. A damaged file with some readable frames has both, frames and problem.
    """

    num_frames: int = 0
    fps: float = 0.0
    width: int = 0
    height: int = 0
    duration_seconds: float = 0.0
    problem: str = ""


def read_clip(path: str | os.PathLike[str], frames: Sequence[int], size: tuple[int, int] | None = None) -> Tensor:
    """Decode the given frames of a video.

    Args:
        path: a file that FFmpeg reads.
        frames: numbers in presentation order from 0, in any order, repeated as often as wanted.
        size: (height, width) in pixels to scale to while decoding; None keeps the video's own.

    Returns: uint8 (3, len(frames), height, width), RGB, the picture upright (rotation metadata is applied).

    Raises:
        VideoError: no such file, no video stream, unreadable data, or a frame beyond the end.
        ValueError: no frame asked for, or a negative number.
    """
    if len(frames) == 0 or min(frames) < 0:
        raise ValueError(f"frames must be numbers from 0, at least one, got {list(frames)}")
    places: dict[int, list[int]] = {}
    for place, number in enumerate(frames):
        places.setdefault(number, []).append(place)

    reformatter = VideoReformatter()
    clip: Tensor | None = None
    with _open(path) as (container, stream):
        number, missing = -1, len(places)
        for number, frame in enumerate(_frames(container, stream)):
            if number not in places:
                continue
            picture = _to_rgb(reformatter, frame, size)
            if clip is None:
                clip = torch.empty((3, len(frames), *picture.shape[1:]), dtype=torch.uint8)
                size = cast(tuple[int, int], tuple(picture.shape[1:]))  # a stream may change its size midway
            clip[:, places[number]] = picture[:, None]
            missing -= 1
            if missing == 0:
                return clip
    raise VideoError(path, f"frame {max(frames)} asked for, {number + 1} readable frames")


def probe_video(path: str | os.PathLike[str]) -> VideoInfo:
    """Decode a whole file once, to know what can be trusted of it. Never raises for a bad file: see `problem`."""
    num_frames = corrupt = 0
    errors: list[str] = []
    try:
        with _open(path) as (container, stream):
            first = None
            for frame in _frames(container, stream, errors):
                first = first or frame
                num_frames += 1
                corrupt += frame.is_corrupt
            if first is None:
                return VideoInfo(problem=errors[0] if errors else "no frame can be decoded")
            fps = float(stream.average_rate or stream.guessed_rate or 0)
            width, height = (first.width, first.height)[:: -1 if first.rotation % 180 else 1]
    except VideoError as error:
        return VideoInfo(problem=error.reason)
    problems = [f"{len(errors)} unreadable packets ({errors[0]})"] if errors else []
    problems += [f"{corrupt} corrupt frames"] if corrupt else []
    duration_seconds = num_frames / fps if fps else 0.0
    return VideoInfo(num_frames, fps, width, height, duration_seconds, ", ".join(problems))


@contextmanager
def _open(path: str | os.PathLike[str]) -> Iterator[tuple[InputContainer, av.VideoStream]]:
    """The container and its first video stream; every failure on the way is a VideoError."""
    try:
        if os.path.getsize(path) == 0:
            raise VideoError(path, "empty file")
        with av.open(os.fspath(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VideoError(path, "no video stream")
            stream = container.streams.video[0]
            stream.codec_context.thread_count = 1  # parallelism is over videos
            yield container, stream
    except FileNotFoundError:
        raise VideoError(path, "no such file") from None
    except (FFmpegError, OSError) as error:  # garbage has been seen to raise PermissionError
        raise VideoError(path, f"unreadable ({_reason(error)})") from None


def _frames(
    container: InputContainer, stream: av.VideoStream, errors: list[str] | None = None
) -> Iterator[av.VideoFrame]:
    """All readable frames in presentation order. A packet that cannot be decoded is passed over, and noted."""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = cast(list[av.VideoFrame], packet.decode())
        except StopIteration:
            return
        except (FFmpegError, OSError) as error:
            if errors is not None:
                errors.append(_reason(error))
            continue
        yield from frames


def _to_rgb(reformatter: VideoReformatter, frame: av.VideoFrame, size: tuple[int, int] | None) -> Tensor:
    """Scale, convert and turn upright: uint8 (3, H, W). Planar RGB is copied without interleaving."""
    sideways = frame.rotation % 180 != 0
    height, width = (None, None) if size is None else size[::-1] if sideways else size
    flags = Interpolation.BILINEAR
    if frame.width % 8:  # without scaling, FFmpeg's quick yuv420p -> gbrp leaves the last width % 8 columns unwritten
        flags |= Interpolation.ACCURATE_RND
    rgb = reformatter.reformat(frame, width, height, format="gbrp", interpolation=flags, threads=1)
    rows = [np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size) for plane in rgb.planes]
    green, blue, red = (row[: rgb.height, : rgb.width] for row in rows)
    picture = torch.from_numpy(np.stack([red, green, blue]))
    return torch.rot90(picture, frame.rotation // 90, (1, 2)) if frame.rotation % 360 else picture


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).lower()
