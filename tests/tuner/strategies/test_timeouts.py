from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.strategies.timeouts import AdaptiveTimeout, deadline_seconds, median_and_deviation


def test_before_anything_was_measured_the_first_timeout_counts() -> None:
    timeout = AdaptiveTimeout(7.0)
    timeout.note(0.1)
    timeout.note(0.1)
    assert timeout.seconds == 7.0
    assert timeout.spread == (0.0, 0.0)


def test_afterwards_the_median_and_its_deviations_do() -> None:
    timeout = AdaptiveTimeout(7.0)
    for seconds in (0.1, 0.2, 0.3, 0.2, 5.0):
        timeout.note(seconds)
    median, deviation = timeout.spread
    assert median == pytest.approx(0.2)
    assert deviation == pytest.approx(0.1)
    assert timeout.seconds == pytest.approx(0.2 + 10 * 1.4826 * 0.1)


def test_equal_times_are_waited_for_some_times_over_and_never_less_than_the_least() -> None:
    timeout = AdaptiveTimeout(7.0, least_seconds=0.25)
    for _ in range(5):
        timeout.note(0.01)
    assert deadline_seconds(0.01, 0.0) == pytest.approx(0.04)
    assert timeout.seconds == 0.25


@given(st.lists(st.floats(1e-6, 1e3), min_size=3, max_size=60))
def test_the_usual_is_always_waited_for(seconds: list[float]) -> None:
    median, deviation = median_and_deviation(seconds)
    assert deadline_seconds(median, deviation) >= 4 * median * (1 - 1e-12)
