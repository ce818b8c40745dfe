"""Which frames of a video make a clip. Pure functions of counts: no file is touched.

A clip has `num_frames` frames, `stride` apart, so it spans `(num_frames - 1) * stride + 1` frames of the
video. A video shorter than that is looped: after its last frame comes its first.
"""

import numpy as np


def clip_span(num_frames: int, stride: int) -> int:
    """The number of frames of the video from a clip's first frame to its last, both counted."""
    return (num_frames - 1) * stride + 1


def random_clip(video_frames: int, num_frames: int, stride: int, rng: np.random.Generator) -> list[int]:
    """One clip at a uniformly random start.

    Args:
        video_frames: frames in the video, at least 1.
        num_frames: frames in the clip.
        stride: distance between the clip's frames, in frames of the video.
        rng: where the start comes from.
    """
    last_start = max(0, video_frames - clip_span(num_frames, stride))
    return _clip(int(rng.integers(last_start + 1)), video_frames, num_frames, stride)


def uniform_clips(video_frames: int, num_frames: int, stride: int, num_clips: int) -> list[list[int]]:
    """`num_clips` clips spread evenly from the beginning to the end; a single one lies in the middle."""
    last_start = max(0, video_frames - clip_span(num_frames, stride))
    places = [0.5] if num_clips == 1 else [i / (num_clips - 1) for i in range(num_clips)]
    return [_clip(round(place * last_start), video_frames, num_frames, stride) for place in places]


def _clip(start: int, video_frames: int, num_frames: int, stride: int) -> list[int]:
    return [(start + i * stride) % video_frames for i in range(num_frames)]
