"""Finds the unit and the starting point of the clock that a script reports, and converts it to seconds."""

from __future__ import annotations

from tuner.probes.commands.script_habits import ClockKind, ScriptHabits

#: Maps the seconds in a unit of time to the name of the unit, the most likely unit first.
_UNITS = {1.0: "seconds", 60.0: "minutes", 1e-3: "milliseconds", 3600.0: "hours"}
#: A script's clock agrees with the wall clock if its increase divided by that of the wall clock is in this
#: range. The ratio is below 1 if the script does not count the time of evaluations.
_LEAST_RATIO, _MOST_RATIO = 0.25, 1.12
#: Wall-clock seconds after which a script's clock may be recognized as seconds.
_LEAST_SECONDS = 0.2
#: Number of intervals between reports, and wall-clock seconds, after which a script's clock may be recognized
#: as minutes, milliseconds or hours. Fewer do not suffice, since lines that are read late seem to follow each
#: other too fast.
_SURE_INTERVALS, _SURE_SECONDS = 2, 1.0
#: Number of intervals between reports, and wall-clock seconds, after which a clock that fits no unit is
#: ignored.
_MOST_INTERVALS, _MOST_SECONDS = 4, 2.0
#: Lines whose times differ by less than this belong to one report, seconds.
_SAME_SECONDS = 0.01
#: Values of a clock above this number are taken as seconds since 1970.
_DATE = 1e8
#: A clock is too coarse if its last digit is worth more than this share of the time between two reports.
_COARSE_SHARE = 0.05
#: A clock whose first value is this many seconds larger than the time since the script was started did not
#: start with the run.
_AHEAD_SECONDS = 1.0
#: Seconds of a day. If the time of day that a script reports decreases by at least `_LEAST_BACK_SECONDS`, it
#: is taken to have passed midnight.
_DAY_SECONDS, _LEAST_BACK_SECONDS = 86400.0, 43200.0
#: Largest number of digits after the decimal point that are counted.
_MOST_DIGITS = 6


class ScriptClock:
    """Finds the unit of the clock that a script reports, and converts it to seconds.

    - A reported clock may be in seconds, minutes, milliseconds or hours, and may count from the beginning of
      the run or from the last report. It may also be a date or the time of day.
    - The clock is used as soon as one of these interpretations agrees with the wall clock.
    - If the clock has too few digits for the time between reports, the wall clock is used instead.

    Args:
        habits: Facts about how the script reports; the kind and unit of its clock are added to them.
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._first: tuple[float, float] | None = None  # the script's clock, the wall clock
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
        """Converts a reported clock to seconds.

        Args:
            reported: The value of the clock as the script reports it, in an unknown unit.
            wall: Time of the report, seconds on a monotonic clock.
            since_start: Wall-clock seconds since the run began; None if unknown.

        Returns:
            Two numbers, of which at most one is not None. The first is the seconds since the run began. The
            second is returned if the script reports a date or the time of day: seconds on a clock of which
            only the differences are meaningful. Both are None while the kind of the clock is unknown.
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
                    f"the script's clock has too few digits for reports that are "
                    f"{passed / self._num_intervals:.2g} s apart ({_UNITS[unit]}): the wall clock, which "
                    "agrees with it, is used instead"
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
                f"the script's clock is not used: it advanced by {went_on:g} while {passed:.1f} s passed, "
                "which fits neither the time since the beginning nor the time since the last report; the "
                "wall clock is used instead. Correct or remove workload.metrics.seconds"
            )

    def _is_too_coarse(self, unit: float, went_on: float, passed: float) -> bool:
        """Whether the script's clock agrees with the wall clock, but has too few digits to be useful.

        Args:
            unit: Seconds in the unit that the clock is assumed to have.
            went_on: Increase of the script's clock since the first report, in the unit of that clock.
            passed: Wall-clock seconds since the first report.
        """
        last_digit = unit * 10.0**-self._digits
        if last_digit <= _COARSE_SHARE * passed / self._num_intervals:
            return False
        slack = _COARSE_SHARE * passed
        since_beginning = went_on > 0 and abs(unit * went_on - passed) <= last_digit + slack
        of_each = abs(unit * self._sum_before - passed) <= self._num_intervals * last_digit + slack
        return since_beginning or of_each

    def _is_ahead(self, unit: float) -> bool:
        """Whether the clock was already running before the run began, as the time of day is.

        Then only the differences between the values of the clock are used.

        Args:
            unit: Seconds in the unit that the clock is assumed to have.
        """
        assert self._first is not None
        if self._since_start is None:
            return False
        last_digit = unit * 10.0**-self._digits
        return unit * self._first[0] > self._since_start + last_digit + _AHEAD_SECONDS

    def _settle(self, kind: ClockKind, unit: float) -> None:
        habits = self._habits
        habits.clock, habits.clock_unit = kind, unit
        if kind == "since the last report":
            habits.say(
                f"the script's clock counts {_UNITS[unit]} since its last report: these times are summed"
            )
        elif kind == "since the beginning" and unit != 1.0:
            habits.say(f"the script's clock counts {_UNITS[unit]}: it is converted to seconds")
        elif kind == "date":
            habits.say(
                "the script's clock is a date or the time of day: only differences of its values are used"
            )


def _digits_of(number: float) -> int:
    """Returns the number of digits after the decimal point, without trailing zeros."""
    digits = f"{number:.{_MOST_DIGITS}f}".rstrip("0").partition(".")[2]
    return len(digits)
