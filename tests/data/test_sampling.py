import numpy as np
import pytest

from cbam3d.data.sampling import Sampling, clip_span, random_clip, segment_clips, uniform_clips


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
    assert clip_span(4, 2.5) == 9


def test_fractional_strides_repeat_and_skip_frames_evenly():
    assert uniform_clips(4, 8, 0.5, 1) == [[0, 1, 1, 2, 2, 3, 3, 4 % 4]]
    assert np.diff(uniform_clips(100, 8, 2.5, 1)[0]).tolist() == [3, 2, 3, 2, 3, 2, 3]


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


def test_a_short_video_is_padded_when_asked():
    assert random_clip(3, 5, 1, np.random.default_rng(0), "pad") == [0, 1, 2, 2, 2]
    assert uniform_clips(3, 3, 2, 1, "pad") == [[0, 2, 2]]


@pytest.mark.parametrize(
    ("video_frames", "num_frames", "num_clips", "expected"),
    [
        (12, 4, 1, [[1, 4, 7, 10]]),  # parts of 3 frames, their middle ones
        (12, 4, 3, [[0, 3, 6, 9], [1, 4, 7, 10], [2, 5, 8, 11]]),
        (8, 4, 1, [[1, 3, 5, 7]]),  # the middle of [0, 2) is 1
        (2, 4, 1, [[0, 0, 1, 1]]),  # frames are repeated, not looped
        (1, 3, 1, [[0, 0, 0]]),
    ],
)
def test_segments_give_a_frame_of_each_part(video_frames, num_frames, num_clips, expected):
    assert segment_clips(video_frames, num_frames, num_clips) == expected


def test_random_segments_stay_in_their_parts_and_reach_all_of_them():
    clips = np.array(segment_clips(40, 8, 500, np.random.default_rng(0)))
    for i in range(8):
        assert sorted(set(clips[:, i])) == list(range(5 * i, 5 * i + 5))


def test_a_rate_of_ones_own_stretches_the_stride():
    sampling = Sampling(num_frames=4, stride=2, fps=15.0)
    assert sampling.uniform(100, 30.0, 1) == [[44, 48, 52, 56]]  # span 13, starts 0 … 87, the middle one 43.5
    assert sampling.needed_frames(30.0) == 13
    slow = Sampling(num_frames=4, stride=1, fps=30.0)
    assert slow.uniform(8, 12.5, 1) == [[3, 3, 4, 4]]  # steps of 0.417: 0, 0.42, 0.83, 1.25; span 2, start 3
    assert Sampling(4, 2).video_stride(30.0) == 2.0
    assert Sampling(4, 2, fps=15.0).video_stride(0.0) == 2.0  # a rate that is not known


def test_clips_of_a_visit_are_independent():
    rng = np.random.default_rng(0)
    clips = Sampling(num_frames=4, stride=2).random(1000, 25.0, rng, num_clips=5)
    assert len({clip[0] for clip in clips}) == 5
