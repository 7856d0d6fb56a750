"""The clock that a script reports: since the beginning, since the last report, or a date."""

from __future__ import annotations

from tuner.probes.commands.script_habits import ClockKind, ScriptHabits

#: Seconds of one unit, the likeliest first.
_UNITS = {1.0: "seconds", 60.0: "minutes", 1e-3: "milliseconds", 3600.0: "hours"}
#: A script's clock over the wall clock: below 1 where it leaves evaluation out.
_LEAST_RATIO, _MOST_RATIO = 0.25, 1.12
#: Wall-clock seconds after which a clock is believed to count seconds.
_LEAST_SECONDS = 0.2
#: Intervals and wall-clock seconds after which it is believed to count anything else: lines that are read
#: late, since the script or the disk holds them back, follow each other as if its clock were slow.
_SURE_INTERVALS, _SURE_SECONDS = 2, 1.0
#: Intervals and wall-clock seconds after which a clock that fits nothing is given up.
_MOST_INTERVALS, _MOST_SECONDS = 4, 2.0
#: Lines that are closer are of one report.
_SAME_SECONDS = 0.01
#: Larger numbers are seconds since the epoch of Unix.
_DATE = 1e8
#: A clock is too coarse where its last digit stands for more than this share of the time between two reports.
_COARSE_SHARE = 0.05
#: A clock is not the run's where it is so many seconds ahead of the time since the run's start.
_AHEAD_SECONDS = 1.0
#: A clock that goes back by more seconds than this has passed midnight.
_DAY_SECONDS, _LEAST_BACK_SECONDS = 86400.0, 43200.0
#: Digits after the point that count.
_MOST_DIGITS = 6


class ScriptClock:
    """Compares what a script reports as its clock with the wall clock.

    A reported clock counts only once it agrees with the wall clock in one of the units and of the ways to
    count: seconds since the beginning, or of each epoch, minutes, a date, the time of day. One with too few
    digits for the script's epochs gives way to the wall clock if both agree as far as these digits show.

    Args:
        habits: What is known of the script; gets the kind of its clock.
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._first: tuple[float, float] | None = None  # its clock, the wall clock
        self._last: tuple[float, float] | None = None
        self._since_start: float | None = None
        self._sum_before, self._sum = 0.0, 0.0
        self._digits = 0
        self._read_at: float | None = None
        self._num_intervals = 0
        self._last_date, self._days = float("-inf"), 0.0

    def read(
        self, reported: float, wall: float, since_start: float | None = None
    ) -> tuple[float | None, float | None]:
        """The seconds since the run began, and the time on an even clock, as far as they are known.

        Args:
            reported: What the script says.
            wall: When it said so, seconds on an even clock.
            since_start: Wall-clock seconds since the run began; None if they are not known.
        """
        habits = self._habits
        if habits.clock is None:
            self._compare(reported, wall, since_start)
        if self._read_at is None or wall - self._read_at >= _SAME_SECONDS:
            self._sum += reported
        self._read_at = wall
        if habits.clock == "since the beginning":
            return reported * habits.clock_unit, None
        if habits.clock == "since the last report":
            return self._sum * habits.clock_unit, None
        if habits.clock == "date":
            date = reported * habits.clock_unit
            self._days += _DAY_SECONDS * (date < self._last_date - _LEAST_BACK_SECONDS)
            self._last_date = date
            return None, date + self._days
        return None, None

    def _compare(self, reported: float, wall: float, since_start: float | None) -> None:
        habits = self._habits
        self._digits = max(self._digits, _digits_of(reported))
        if self._first is None or self._last is None:
            self._first = self._last = (reported, wall)
            self._since_start = since_start
            return
        if wall - self._last[1] < _SAME_SECONDS:
            return
        self._last = (reported, wall)
        self._num_intervals += 1
        self._sum_before += reported
        passed = wall - self._first[1]
        if passed < _LEAST_SECONDS:
            return
        went_on = reported - self._first[0]
        is_date = reported > _DATE
        is_sure = self._num_intervals >= _SURE_INTERVALS and passed >= _SURE_SECONDS
        for unit in _UNITS if is_sure and not is_date else [1.0]:
            if self._is_too_coarse(unit, went_on, passed):
                self._settle("refused", 1.0)
                habits.say(
                    f"the script's clock shows whole {_UNITS[unit]}, or few digits, for reports that are "
                    f"{passed / self._num_intervals:.2g} s apart: time is measured by the wall clock, with "
                    "which it agrees"
                )
                return
            if _LEAST_RATIO <= unit * went_on / passed <= _MOST_RATIO:
                self._settle("date" if is_date or self._is_ahead(unit) else "since the beginning", unit)
                return
            if not is_date and _LEAST_RATIO <= unit * self._sum_before / passed <= _MOST_RATIO:
                self._settle("since the last report", unit)
                return
        if self._num_intervals >= _MOST_INTERVALS and passed >= _MOST_SECONDS:
            self._settle("refused", 1.0)
            habits.say(
                f"the script's clock was not used: it went on by {went_on:g} while {passed:.1f} s passed, "
                "which is neither seconds since the beginning nor of each report; time is measured by the "
                "wall clock. Correct or remove workload.metrics.seconds"
            )

    def _is_too_coarse(self, unit: float, went_on: float, passed: float) -> bool:
        """Whether the wall clock shows the same as this one, with more digits."""
        last_digit = unit * 10.0**-self._digits
        if last_digit <= _COARSE_SHARE * passed / self._num_intervals:
            return False
        slack = _COARSE_SHARE * passed
        since_beginning = went_on > 0 and abs(unit * went_on - passed) <= last_digit + slack
        of_each = abs(unit * self._sum_before - passed) <= self._num_intervals * last_digit + slack
        return since_beginning or of_each

    def _is_ahead(self, unit: float) -> bool:
        """Whether the clock began before the run, as the time of day does: then only differences count."""
        assert self._first is not None
        if self._since_start is None:
            return False
        last_digit = unit * 10.0**-self._digits
        return unit * self._first[0] > self._since_start + last_digit + _AHEAD_SECONDS

    def _settle(self, kind: ClockKind, unit: float) -> None:
        habits = self._habits
        habits.clock, habits.clock_unit = kind, unit
        if kind == "since the last report":
            habits.say(f"the script's clock counts {_UNITS[unit]} since its last report: they are added up")
        elif kind == "since the beginning" and unit != 1.0:
            habits.say(f"the script's clock counts {_UNITS[unit]}: they are read as such")
        elif kind == "date":
            habits.say("the script's clock is a date or the time of day: differences are used")


def _digits_of(number: float) -> int:
    """Digits after the point."""
    digits = f"{number:.{_MOST_DIGITS}f}".rstrip("0").partition(".")[2]
    return len(digits)
