from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.probes.commands.progress_line import ProgressLine
from tuner.probes.commands.run_clock import Attempt, ReadPoint, step_spread

PACE = 0.02  # seconds a sample


def line(samples: int, time: float | None, **more: object) -> ProgressLine:
    seen_at = (time or 0.0) + 100.0
    return ProgressLine(seen_at=seen_at, time=time, samples=samples, step=samples // 10, **more)


def attempt(
    lines: Iterable[ProgressLine], known: ReadPoint | None = None, started_at: float | None = None
) -> Attempt:
    made = Attempt(known or ReadPoint(), started_at)
    for one in lines:
        made.add(one)
    return made


def even(first: int, last: int, *, start: float = 50.0) -> list[ProgressLine]:
    return [line(samples, start + PACE * samples) for samples in range(first, last + 1, 10)]


def test_a_run_that_says_when_it_begins_is_timed_from_there() -> None:
    made = attempt([ProgressLine(event="begin", seen_at=150.0, time=50.0), *even(10, 50)])
    assert [m.seconds for m in made.points()] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert made.began_at() == pytest.approx(150.0)


def test_a_first_line_is_put_back_by_the_pace_of_the_next() -> None:
    made = attempt(even(10, 50))
    assert [m.seconds for m in made.points()] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
    assert made.began_at() == pytest.approx(150.0)


def test_a_single_line_counts_from_where_its_script_was_started() -> None:
    made = attempt([line(10, 53.0)], started_at=151.0)
    (read_point,) = made.points()
    assert read_point.seconds == pytest.approx(2.0)
    assert made.counts_startup
    made.add(line(20, 53.2))
    assert [m.seconds for m in made.points()] == pytest.approx([0.2, 0.4])
    assert not made.counts_startup


@given(st.integers(2, 8), st.floats(0.0, 1e4), st.integers(0, 3))
def test_resumed_and_repeated_runs_show_the_clock_of_one_that_was_never_interrupted(
    stop: int, start: float, back: int
) -> None:
    whole = attempt(even(10, 200)).points()
    first = attempt(even(10, 10 * stop)).points()
    for started in (0, max(10 * (stop - back), 0), 10 * stop):
        again = attempt(even(started + 10, 200, start=start), known=first[-1])
        heard = [*first, *again.points()]
        assert [m.samples for m in heard] == [m.samples for m in whole]
        assert [m.seconds for m in heard] == pytest.approx([m.seconds for m in whole], abs=1e-6)


def test_what_was_known_before_is_repeated_time() -> None:
    known = attempt(even(10, 100)).points()[-1]
    again = attempt([line(0, 50.0), *even(10, 150)], known=known)
    assert again.repeated_seconds() == pytest.approx(2.0)
    assert attempt(even(110, 150), known=known).repeated_seconds() == 0.0


def test_a_whole_pass_has_its_own_clock() -> None:
    known = attempt([line(10 * n, 5.0 * n) for n in range(1, 11)]).points()[-1]
    again = attempt(even(10, 150), known=known)
    assert again.points()[-1].seconds == pytest.approx(50.0 + 1.0)
    whole = again.whole_pass()
    assert [m.samples for m in whole] == list(range(10, 151, 10))
    assert [m.seconds for m in whole] == pytest.approx([PACE * m.samples for m in whole])
    assert again.points()[-1].seconds == pytest.approx(51.0)  # the joined clock is left alone
    own = attempt([line(10 * n, 7.0 + n, seconds=0.5 * n) for n in (1, 2, 3)], known=ReadPoint(samples=20))
    assert [m.seconds for m in own.whole_pass()] == pytest.approx([0.0, 0.5, 1.0, 1.5])


def test_time_between_lines_of_the_same_samples_is_scoring() -> None:
    lines = [line(10, 1.0), line(10, 4.0, value=0.5), line(20, 5.0), line(30, 6.0)]
    made = attempt(lines)
    assert made.scoring_seconds == pytest.approx(3.0)
    points = made.points()
    assert [m.value for m in points] == [0.5, None, None]
    assert points[2].seconds - points[0].seconds == pytest.approx(2.0)
    assert made.intervals() == [(1.0, 1), (1.0, 1)]


def test_the_script_s_own_clock_goes_before_ours() -> None:
    lines = [line(10 * n, 7.0 + 3 * n, seconds=0.1 * n) for n in (1, 2, 3)]
    assert [m.seconds for m in attempt(lines).points()] == pytest.approx([0.0, 0.1, 0.2, 0.3])


def test_a_smaller_number_of_samples_or_another_process_is_another_attempt() -> None:
    made = attempt(even(10, 50))
    assert made.continues_with(line(60, None))
    assert not made.continues_with(line(40, None))
    named = attempt([line(10, 1.0, process="a")])
    assert not named.continues_with(line(20, 2.0, process="b"))


def test_lines_that_are_read_together_show_a_pace_once_they_are_apart() -> None:
    made = Attempt(ReadPoint(), 0.0)
    for n in range(1, 41):
        # Ten lines are seen at once, every half second.
        made.add(ProgressLine(seen_at=3.0 + 0.5 * math.ceil(n / 10), samples=10 * n, step=n))
        made.points()
    points = made.points()
    assert points[-1].seconds == pytest.approx(2.0, abs=0.5)
    spread = step_spread(made.intervals())
    assert spread is not None
    assert spread.mean == pytest.approx(0.05)


def test_an_interval_of_many_steps_hides_how_they_differ() -> None:
    spread = step_spread([(9.0, 1), (1.0, 4), (3.0, 4), (1.0, 4), (3.0, 4)])
    assert spread is not None
    assert spread.count == 16
    assert spread.mean == spread.median == 2.0
    assert spread.std == pytest.approx(2.0)
    assert step_spread([]) is None


def test_a_first_interval_that_compiles_is_start_up() -> None:
    begin = ProgressLine(event="begin", seen_at=150.0, time=50.0)
    later = [line(samples, 53.0 + PACE * samples) for samples in range(10, 101, 10)]
    made = attempt([begin, *later])
    assert [m.seconds for m in made.points()[1:]] == pytest.approx([0.2 * n for n in range(1, 11)])
    assert made.began_at() == pytest.approx(153.0)


def test_a_late_value_is_put_at_the_time_of_its_samples() -> None:
    made = attempt([*even(10, 50), line(25, None, value=0.5, is_late=True)])
    points = {m.samples: m for m in made.points()}
    assert points[25].value == 0.5
    assert points[25].seconds == pytest.approx(0.5)
    assert [m.samples for m in made.points()] == [10, 20, 25, 30, 40, 50]
