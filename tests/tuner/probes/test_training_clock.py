import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.probes.training_clock import WARMUP_STEPS, TrainingClock, settled_from

SLOW_START = [3.8, 0.4, 0.3, 0.2, 0.15]


def clock_after(steps: list[float], **known: float) -> TrainingClock:
    clock = TrainingClock(**known)
    for step in steps:
        clock.add(step)
    return clock


def test_warmup_is_clocked_at_the_median_of_the_settled_steps() -> None:
    clock = clock_after(SLOW_START + [0.1] * 95)
    assert clock.seconds == pytest.approx(100 * 0.1, rel=1e-9)


def test_resumed_clock_equals_that_of_an_uninterrupted_run() -> None:
    first = clock_after(SLOW_START + [0.1] * 45)
    assert first.typical_seconds is not None
    second = clock_after(
        SLOW_START + [0.1] * 45,
        start_seconds=first.seconds,
        typical_seconds=first.typical_seconds,
    )
    assert second.seconds == pytest.approx(100 * 0.1, rel=1e-9)


def test_slice_too_short_to_settle_goes_by_the_slice_before() -> None:
    clock = clock_after([3.8, 0.4], start_seconds=7.0, typical_seconds=0.1)
    assert clock.seconds == pytest.approx(7.2, rel=1e-9)


def test_first_slice_too_short_to_settle_leaves_the_first_step_out() -> None:
    assert clock_after([3.8, 0.2, 0.2]).seconds == pytest.approx(0.6, rel=1e-9)
    assert clock_after([3.8]).seconds == pytest.approx(3.8, rel=1e-9)
    assert clock_after([]).typical_seconds is None


def test_slow_steps_after_the_warmup_count_in_full() -> None:
    steps = [0.1] * 30 + [5.0] + [0.1] * 30
    assert clock_after(steps).seconds == pytest.approx(60 * 0.1 + 5.0, rel=1e-9)


@given(st.lists(st.floats(1e-4, 10), min_size=1, max_size=60))
def test_clock_never_goes_back_along_its_steps(steps: list[float]) -> None:
    clock = clock_after(steps)
    early = min(len(steps), 40)
    seconds = [clock.seconds_at(count) for count in range(early + 1)]
    assert all(later >= earlier - 1e-9 for earlier, later in itertools.pairwise(seconds))
    assert clock.seconds >= seconds[-1] - 1e-9
    assert clock.num_steps == len(steps)


def test_what_is_said_of_early_steps_stands_once_settled() -> None:
    clock = clock_after(SLOW_START + [0.1] * 35)
    assert clock.is_settled
    before = clock.seconds_at(12)
    for _ in range(100):
        clock.add(9.0)
    assert clock.seconds_at(12) == before


def test_at_least_five_steps_are_warmup_and_more_until_settled() -> None:
    assert settled_from([0.1] * 30) == WARMUP_STEPS
    slow_for_ten = [1.0] * 10 + [0.1] * 30
    assert 8 <= settled_from(slow_for_ten) <= 10
    assert settled_from([1.0] * 20 + [0.1] * 20) == 18
    assert settled_from([0.1, 0.1, 0.1]) == 1
    assert settled_from([]) == 0


@given(st.lists(st.floats(1e-4, 10), max_size=80))
def test_never_more_than_half_is_warmup(steps: list[float]) -> None:
    assert 0 <= settled_from(steps) <= len(steps) // 2
