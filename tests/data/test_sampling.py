import numpy as np
import pytest

from cbam3d.data.sampling import clip_span, random_clip, uniform_clips


@pytest.mark.parametrize(
    ("video_frames", "num_frames", "stride", "num_clips", "expected"),
    [
        (10, 4, 2, 1, [[2, 4, 6, 8]]),  # span 7, starts 0 … 3, the middle one is 1.5, rounded to even
        (7, 4, 2, 1, [[0, 2, 4, 6]]),
        (10, 4, 1, 3, [[0, 1, 2, 3], [3, 4, 5, 6], [6, 7, 8, 9]]),
        (11, 4, 1, 2, [[0, 1, 2, 3], [7, 8, 9, 10]]),
        (3, 5, 1, 1, [[0, 1, 2, 0, 1]]),  # looped
        (3, 3, 2, 2, [[0, 2, 1], [0, 2, 1]]),
        (1, 3, 4, 1, [[0, 0, 0]]),
    ],
)
def test_uniform_clips(video_frames, num_frames, stride, num_clips, expected):
    assert uniform_clips(video_frames, num_frames, stride, num_clips) == expected


def test_span():
    assert clip_span(16, 4) == 61
    assert clip_span(1, 9) == 1


def test_random_clips_reach_every_start_evenly():
    rng = np.random.default_rng(0)
    starts = [random_clip(10, 4, 2, rng)[0] for _ in range(4000)]
    values, counts = np.unique(starts, return_counts=True)
    assert values.tolist() == [0, 1, 2, 3]
    assert counts.min() > 900  # 1000 expected, standard deviation 27


def test_random_clips_have_the_stride_and_stay_inside():
    rng = np.random.default_rng(0)
    for _ in range(200):
        clip = random_clip(50, 8, 3, rng)
        assert np.diff(clip).tolist() == [3] * 7
        assert clip[0] >= 0
        assert clip[-1] < 50


def test_a_short_video_is_looped():
    assert random_clip(3, 5, 1, np.random.default_rng(0)) == [0, 1, 2, 0, 1]
