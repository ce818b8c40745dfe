"""Decoding a whole file once, to know what can be trusted of it."""

import os
from dataclasses import dataclass

from cbam3d.data.container import Deadline, VideoError, open_video
from cbam3d.data.decode import all_frames
from cbam3d.data.pixels import upright_size


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


def probe_video(path: str | os.PathLike[str], timeout_seconds: float = 600.0) -> VideoInfo:
    """Decode a whole file, in `timeout_seconds` at most. Never raises for a bad file: see `problem`."""
    num_frames = corrupt = 0
    errors: list[str] = []
    deadline = Deadline(path, timeout_seconds)
    try:
        with open_video(path, deadline) as (container, stream):
            height = width = 0
            for frame in all_frames(container, stream, deadline, errors):
                if not num_frames:
                    height, width = upright_size(frame)
                num_frames += 1
                corrupt += frame.is_corrupt
            if not num_frames:
                return VideoInfo(problem=f"no frame can be decoded{': ' * bool(errors)}{(errors or [''])[0]}")
            fps = float(stream.average_rate or stream.guessed_rate or 0)
    except VideoError as error:
        return VideoInfo(problem=error.reason)
    problems = [f"{len(errors)} unreadable packets ({errors[0]})"] if errors else []
    problems += [f"{corrupt} corrupt frames"] if corrupt else []
    duration_seconds = num_frames / fps if fps else 0.0
    return VideoInfo(num_frames, fps, width, height, duration_seconds, ", ".join(problems))
