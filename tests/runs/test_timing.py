import math
import time
from itertools import pairwise

from cbam3d.runs.timing import WARM_UP, medians, ratio, take_turns


def test_jobs_take_turns_and_each_goes_first_in_every_second_round():
    calls = []
    times = take_turns({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3)
    assert {name: len(values) for name, values in times.items()} == {"a": 3, "b": 3}
    rounds = [tuple(calls[i : i + 2]) for i in range(0, len(calls), 2)]
    assert len(rounds) == WARM_UP + 3
    assert all({*pair} == {"a", "b"} for pair in rounds)
    assert all(here != there for here, there in pairwise(rounds))


def test_times_are_those_of_the_job():
    times = take_turns({"sleep": lambda: time.sleep(0.02), "none": lambda: None}, repeats=3)
    assert min(times["sleep"]) >= 0.02 > medians(times)["none"]


def test_the_ratio_is_the_median_within_rounds_not_that_of_medians():
    assert math.isclose(ratio([2.0, 3.0, 100.0], [1.0, 3.0, 10.0]), 2.0)  # of 2, 1, 10; the medians are equal
    assert medians({"job": [3.0, 1.0, 2.0]}) == {"job": 2.0}
