"""Events of probabilities along time, by hand."""

import json

import numpy as np
import pytest

from cbam3d.engine.events import FORMATS, Event, EventSettings, find_events


def windows_of(values, length=1.0, step=1.0):
    """Windows of one class with these probabilities."""
    return [(i * step, i * step + length, np.array([value])) for i, value in enumerate(values)]


def found(values, length=1.0, step=1.0, **settings):
    events = find_events(windows_of(values, length, step), ["a"], step, EventSettings(**settings))
    return [(event.start_seconds, event.end_seconds, round(event.score, 4)) for event in events]


def test_an_event_reaches_the_threshold_and_goes_on_above_a_share_of_it():
    assert found([0, 0.3, 0.6, 0.3, 0.1, 0.3, 0]) == [(1, 4, 0.4)]
    assert found([0, 0.3, 0.6, 0.3, 0], keep=1) == [(2, 3, 0.6)]
    assert found([0, 0.3, 0.6, 0.3, 0], threshold=0.7) == []
    assert found([0.9, 0.9]) == [(0, 2, 0.9)]
    assert found([]) == []


def test_short_ones_are_dropped_and_near_ones_merged():
    values = [0.9, 0, 0.9, 0.9, 0, 0, 0.9]
    assert found(values) == [(0, 1, 0.9), (2, 4, 0.9), (6, 7, 0.9)]
    assert found(values, min_length=2) == [(2, 4, 0.9)]
    assert found(values, merge=1) == [(0, 4, 0.9), (6, 7, 0.9)]
    assert found(values, merge=2) == [(0, 7, 0.9)]
    assert found(values, merge=1, min_length=2) == [(0, 4, 0.9)]


def test_overlapping_windows_are_averaged():
    """Windows of 2 s every second; the steps are means of up to two of them."""
    assert found([0, 1, 1, 0], length=2, threshold=1, keep=0.5) == [(1, 4, pytest.approx(2 / 3, abs=1e-4))]
    assert found([0, 1, 1, 0], length=2, threshold=1, keep=1) == [(2, 3, 1)]


def test_smoothing_is_a_centred_mean():
    values = [0, 0, 0.9, 0, 0]
    assert found(values, smooth=2, threshold=0.3, keep=1) == [(1, 4, 0.3)]
    assert found([0.9, 0, 0, 0], smooth=2, threshold=0.3, keep=1) == [(0, 2, 0.375)]  # two at the edge, then three


def test_a_gap_in_the_windows_is_a_gap_in_the_events():
    windows = [(0.0, 1.0, np.array([0.9])), (3.0, 4.5, np.array([0.8]))]
    events = list(find_events(windows, ["a"], 1.0, EventSettings()))
    assert [(e.start_seconds, e.end_seconds) for e in events] == [(0, 1), (3, 4.5)]


def test_events_do_not_join_across_time_that_no_window_covers():
    windows = [(2.5 * i, 2.5 * i + 1, np.array([0.9])) for i in range(3)]
    for merge, expected in ((0, [(0, 1), (2.5, 3.5), (5, 6)]), (1.5, [(0, 6)])):
        events = find_events(windows, ["a"], 2.5, EventSettings(merge=merge))
        assert [(e.start_seconds, e.end_seconds) for e in events] == expected


def test_events_come_as_they_end_and_classes_have_thresholds_of_their_own():
    read = []

    def windows():
        for i, pair in enumerate([(0.9, 0.2), (0.9, 0.2), (0.0, 0.2), (0.0, 0.0), (0.0, 0.9)]):
            read.append(i)
            yield i * 1.0, i + 1.0, np.array([*pair, 1.0])

    events = find_events(windows(), ["a", "b", None], 1.0, EventSettings(threshold=[0.5, 0.1, 0.1]))
    assert (next(events).label, read) == ("a", [0, 1, 2, 3])  # a step is known when a later window begins
    assert [(e.label, e.start_seconds, e.end_seconds) for e in events] == [("b", 0, 3), ("b", 4, 5)]


def test_subtitles_and_tables():
    event = Event("b & <c>\n\nd", 61.5, 3723.25, 0.5)
    start, line = FORMATS["vtt"]
    assert start + "\n" + line("x.mp4", event) == ("WEBVTT\n\n00:01:01.500 --> 01:02:03.250\nb &amp; &lt;c&gt; d 50%\n")
    start, line = FORMATS["csv"]
    assert start.split(",") == ["path", "label", "start", "end", "score"]
    assert line("x,y.mp4", Event("a", 0, 1.0004, 0.98765)) == '"x,y.mp4",a,0.000,1.000,0.9877'
    found = json.loads(FORMATS["json"][1]("x.mp4", event))
    assert found == {"path": "x.mp4", "label": event.label, "start_seconds": 61.5, "end_seconds": 3723.25, "score": 0.5}


@pytest.mark.parametrize("smooth", [0.0, 3.0])
def test_a_gap_of_years_takes_no_longer_than_a_short_one(smooth):
    """And changes no event: as if every step of it had been taken."""

    def events(before, gap):
        after = [(gap, gap + 1, np.array([0.9])), (gap + 1, gap + 2, np.array([0.7]))]
        settings = EventSettings(threshold=0.4, keep=0.5, smooth=smooth)
        return list(find_events([*windows_of(before), *after], ["a"], 1.0, settings))

    first, last = events([0.2, 0.9, 0.8], 1e9)
    near_first, near_last = events([0.2, 0.9, 0.8, *[0.0] * 27], 30.0)
    assert first == near_first
    assert (last.start_seconds - 1e9, last.score) == (near_last.start_seconds - 30, near_last.score)
