"""Spans of time against frames counted by hand."""

from itertools import pairwise

import pytest

from cbam3d.video.timing import continued, encode_times, end_of, frames_between, rate_by_times


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (0, 1, (0, 25)),
        (1, 2, (25, 25)),
        (0.5, 0.6, (13, 2)),  # frame 12 is shown at 0.48, 15 at 0.60
        (0.52, 0.56, (13, 1)),
        (0.5201, 0.56, (13, 1)),  # rounded
        (0.525, 0.555, (14, 0)),
        (3.9, 9, (98, 2)),
    ],
)
def test_a_span_has_the_frames_shown_in_it(start, end, expected):
    assert frames_between(start, end, 100, 25.0) == expected


def test_spans_that_follow_each_other_share_no_frame():
    edges = [0, 0.3333, 0.7, 1.001, 2.002, 3.3367, 4]
    spans = [frames_between(a, b, 120, 30000 / 1001) for a, b in pairwise(edges)]
    assert [first for first, _ in spans] == [0, *(first + count for first, count in spans[:-1])]
    assert sum(count for _, count in spans) == 120


def test_a_constant_rate_needs_no_times_and_others_keep_them():
    assert encode_times([5 + i / 25 for i in range(50)], 25.0) == b""
    assert encode_times([round(i / 30, 3) for i in range(90)], 30.0) == b""
    uneven = [0, 0.1, 0.2, 1.2, 2.2, 2.3]
    times = encode_times([7 + time for time in uneven], 2.5)
    assert frames_between(0.2, 2.2, 6, 2.5, times) == (2, 2)
    assert frames_between(2.2, 99, 6, 2.5, times) == (4, 2)
    assert end_of(6, 2.5, times) == pytest.approx(2.7)
    assert frames_between(1, 2, 6, 0.0, encode_times(uneven, 0.0)) == (3, 1)
    assert end_of(50, 25.0) == 2


def test_times_tell_the_rate_where_they_contradict_it():
    jittered = [0.0, 0.1, 0.15, 0.3, 0.5]  # four steps in half a second
    assert rate_by_times(1000.0, jittered) == 8
    assert rate_by_times(8.2, jittered) == 8.2  # rounding
    assert rate_by_times(1000.0, [0.0, 0.3, 0.1, 0.2]) == pytest.approx(10)  # in the order of coding
    again = [i / 25 for i in range(100)]
    assert rate_by_times(1000.0, again + again) == pytest.approx(25)
    assert [rate_by_times(30.0, times) for times in ([], [2.0], [2.0, 2.0])] == [30, 30, 30]


def test_times_go_on_where_they_begin_again_and_are_put_in_order():
    coded = [0, 1, 3, 2, 4, 6, 5]
    assert continued([7 + time / 25 for time in coded]) == pytest.approx([i / 25 for i in range(7)])
    twice = [time / 25 for time in range(50)] * 2
    assert continued(twice, 25.0) == pytest.approx([i / 25 for i in range(100)])
    assert continued(twice) == pytest.approx([i / 25 for i in range(100)])
    assert encode_times(twice, 25.0) == b""
    assert len(continued([])) == 0
    joined = encode_times([0, 1, 2, 2.5, 0, 1, 2, 2.5], 1.0)
    assert frames_between(3.5, 5.5, 8, 1.0, joined) == (4, 2)


def test_pauses_of_a_recording_are_no_frame_rate():
    times = [i / 25 + 3600 * (i >= 100) for i in range(200)]
    assert rate_by_times(0.055, times) == pytest.approx(25)
    slides = [10.0 * i for i in range(20)]
    assert rate_by_times(1.0, slides) == pytest.approx(0.1)  # each for ten seconds: no pause
    assert rate_by_times(7.0, [0.0, 0.0, 0.0, 5.0]) == 7
