"""How a script's clock is compared with the wall clock."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from tuner.probes.commands.progress_line import read_clock
from tuner.probes.commands.script_clock import ScriptClock
from tuner.probes.commands.script_habits import ScriptHabits

#: Seconds from the start of the script to its first report's epoch.
STARTUP = 2.0


def read_all(
    habits: ScriptHabits, reported: Callable[[float], float], walls: list[float]
) -> list[tuple[float | None, float | None]]:
    """What a clock shows at some seconds since training began, read again once it is known."""
    for _ in range(2):
        clock = ScriptClock(habits)
        found = [clock.read(reported(wall), 1000.0 + wall, STARTUP + wall) for wall in walls]
    return found


@pytest.mark.parametrize(
    "reported",
    [
        math.floor,
        lambda wall: 1.0,
        lambda wall: 1.7e9 + math.floor(wall),
        lambda wall: 62202.0 + math.floor(wall),
        lambda wall: round(wall / 60.0, 1),
    ],
    ids=["whole seconds", "of each epoch", "date", "time of day", "minutes"],
)
def test_a_clock_too_coarse_for_the_epochs_gives_way_to_the_wall_clock(
    reported: Callable[[float], float],
) -> None:
    habits = ScriptHabits()
    found = read_all(habits, reported, [1.4 * number for number in range(1, 7)])
    assert habits.clock == "refused"
    assert set(found) == {(None, None)}
    assert "the wall clock, which agrees with it, is used" in habits.remarks[0]


def test_whole_seconds_are_enough_for_long_epochs() -> None:
    habits = ScriptHabits()
    found = read_all(habits, math.floor, [40.3 * number for number in range(1, 4)])
    assert habits.clock == "since the beginning"
    assert [seconds for seconds, _ in found] == [40.0, 80.0, 120.0]


def test_a_coarse_clock_that_leaves_scoring_out_is_kept() -> None:
    # 10 s of training and 5 s of scoring an epoch.
    habits = ScriptHabits()
    found = read_all(habits, lambda wall: 10.0, [15.0 * number for number in range(1, 4)])
    assert habits.clock == "since the last report"
    assert [seconds for seconds, _ in found] == [10.0, 20.0, 30.0]


def test_of_the_time_of_day_only_differences_count() -> None:
    habits = ScriptHabits()
    walls = [0.51 * number for number in range(1, 5)]
    found = read_all(habits, lambda wall: 62202.0 + round(wall, 2), walls)
    assert habits.clock == "date"
    assert [time for _, time in found] == pytest.approx([62202.0 + wall for wall in walls])


def test_the_time_of_day_may_pass_midnight() -> None:
    habits = ScriptHabits()
    walls = [20.0 * number for number in range(1, 6)]
    found = read_all(habits, lambda wall: (86350.0 + wall) % 86400.0, walls)
    assert [time for _, time in found] == [86350.0 + wall for wall in walls]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1102 10:00:01.5", 36001.5), ("Mon Nov  2 10:00:01 2026", 36001.0), ("02.11.2026 10:00:01", 36001.0)],
)
def test_a_date_of_any_form_gives_the_time_of_day(text: str, seconds: float) -> None:
    assert read_clock({"seconds": text}, "seconds") == seconds


def test_a_date_may_have_slashes() -> None:
    first, second = (read_clock({"at": f"2026/11/{day:02d} 10:00:01"}, "at") for day in (2, 3))
    assert first is not None
    assert second == first + 86400.0


def test_lines_that_are_read_late_do_not_make_seconds_minutes() -> None:
    """A line every 20 ms, read once a second, the first one alone."""
    habits = ScriptHabits()
    clock = ScriptClock(habits)
    lines = [0.02 * number for number in range(1, 200)]
    walls = [1.0 if line < 0.03 else 2.1 + math.floor(line) for line in lines]
    found = [clock.read(line, wall, wall) for line, wall in zip(lines, walls, strict=True)]
    assert (habits.clock, habits.clock_unit) == ("since the beginning", 1.0)
    assert found[-1] == (pytest.approx(lines[-1]), None)
    assert habits.remarks == []


def test_minutes_are_believed_after_two_intervals() -> None:
    habits = ScriptHabits()
    clock = ScriptClock(habits)
    units = []
    for minutes in (0.51, 1.013, 1.522):
        clock.read(minutes, 1000.0 + 60.0 * minutes, 60.0 * minutes)
        units.append(habits.clock)
    assert units == [None, None, "since the beginning"]
    assert habits.clock_unit == 60.0


def test_a_clock_is_not_given_up_within_the_first_two_seconds() -> None:
    habits = ScriptHabits()
    clock = ScriptClock(habits)
    for number in range(1, 7):
        clock.read(0.06 * number * 1.3, 1000.0 + 0.06 * number, 0.06 * number)
    assert habits.clock is None
    for number in range(1, 7):
        clock.read(0.47 + 0.5 * number, 1000.36 + 0.5 * number, 0.36 + 0.5 * number)
    assert habits.clock == "since the beginning"
