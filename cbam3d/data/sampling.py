"""Clip sampling: pure functions of frame counts, without file access.

A clip has `num_frames` frames, `stride` frames of the video apart; the stride may be fractional, as when clips are
sampled at another frame rate. A clip spans the frames from its first to its last, inclusive. A shorter video is looped
(its last frame is followed by its first) or padded (its last frame is repeated).
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

Short = Literal["loop", "pad"]


def clip_span(num_frames: int, stride: float) -> int:
    """Number of video frames from a clip's first frame to its last, inclusive."""
    return _offset(num_frames - 1, stride) + 1


def random_clip(
    video_frames: int, num_frames: int, stride: float, rng: np.random.Generator, short: Short = "loop"
) -> list[int]:
    """Sample one clip with a uniformly random start.

    Args:
        video_frames: frames in the video, at least 1.
        num_frames: frames in the clip.
        stride: distance between the clip's frames, in frames of the video.
        rng: draws the start.
        short: whether a video shorter than the clip is looped or padded.
    """
    last_start = max(0, video_frames - clip_span(num_frames, stride))
    return _clip(int(rng.integers(last_start + 1)), video_frames, num_frames, stride, short)


def uniform_clips(
    video_frames: int, num_frames: int, stride: float, num_clips: int, short: Short = "loop"
) -> list[list[int]]:
    """`num_clips` clips evenly spaced from start to end; a single one is centred."""
    last_start = max(0, video_frames - clip_span(num_frames, stride))
    places = [0.5] if num_clips == 1 else [i / (num_clips - 1) for i in range(num_clips)]
    return [_clip(round(place * last_start), video_frames, num_frames, stride, short) for place in places]


def segment_clips(
    video_frames: int, num_frames: int, num_clips: int = 1, rng: np.random.Generator | None = None
) -> list[list[int]]:
    """Clips with one frame from each of `num_frames` equal parts of the video (TSN, https://arxiv.org/abs/1608.00859).

    Args:
        video_frames: frames in the video, at least 1.
        num_frames: frames in the clip, and parts of the video.
        num_clips: number of clips.
        rng: draws a frame's position in its part; None spaces the clips' frames evenly over the part, centred for
            a single clip.
    """
    length = video_frames / num_frames
    if rng is None:
        places = np.repeat((np.arange(num_clips)[:, None] + 0.5) / num_clips, num_frames, axis=1)
    else:
        places = rng.random((num_clips, num_frames))
    frames = np.floor((np.arange(num_frames) + places) * length).astype(int)
    return np.minimum(frames, video_frames - 1).tolist()


@dataclass(frozen=True)
class Sampling:
    """How clips are sampled from the videos of a data set.

    Args:
        num_frames: frames in a clip.
        stride: distance between them in frames, of the video or at the rate `fps`.
        fps: frame rate at which to sample; None uses each video's own.
        segments: one frame from each of `num_frames` parts of the video, instead of contiguous clips.
        short: whether a video shorter than a clip is looped or padded.
    """

    num_frames: int
    stride: int
    fps: float | None = None
    segments: bool = False
    short: Short = "loop"

    def video_stride(self, video_fps: float) -> float:
        """Distance between a clip's frames in video frames; an unknown frame rate counts as `fps`."""
        return self.stride * video_fps / self.fps if self.fps and video_fps else float(self.stride)

    def needed_frames(self, video_fps: float) -> int:
        """Minimum number of frames of a video for a clip that is neither looped nor padded."""
        return self.num_frames if self.segments else clip_span(self.num_frames, self.video_stride(video_fps))

    def random(
        self, video_frames: int, video_fps: float, rng: np.random.Generator, num_clips: int = 1
    ) -> list[list[int]]:
        """Clips for training."""
        if self.segments:
            return segment_clips(video_frames, self.num_frames, num_clips, rng)
        stride = self.video_stride(video_fps)
        return [random_clip(video_frames, self.num_frames, stride, rng, self.short) for _ in range(num_clips)]

    def uniform(self, video_frames: int, video_fps: float, num_clips: int) -> list[list[int]]:
        """Deterministic clips for evaluation."""
        if self.segments:
            return segment_clips(video_frames, self.num_frames, num_clips)
        return uniform_clips(video_frames, self.num_frames, self.video_stride(video_fps), num_clips, self.short)


def _offset(i: int, stride: float) -> int:
    """Of a clip's frame i from its first; halves are rounded up, so that frames repeat evenly."""
    return math.floor(i * stride + 0.5)


def _clip(start: int, video_frames: int, num_frames: int, stride: float, short: Short) -> list[int]:
    frames = [start + _offset(i, stride) for i in range(num_frames)]
    if short == "pad":
        return [min(frame, video_frames - 1) for frame in frames]
    return [frame % video_frames for frame in frames]
