"""The clock that a script reports: whether it counts since the beginning, since the last report, or is a "
"date."""

from __future__ import annotations

from tuner.probes.commands.script_habits import ClockKind, ScriptHabits

#: Seconds of one unit, the likeliest first.
_UNITS = {1.0: "seconds", 60.0: "minutes", 1e-3: "milliseconds", 3600.0: "hours"}
#: A script's clock over the wall clock: below 1 where it leaves evaluation out.
_LEAST_RATIO, _MOST_RATIO = 0.25, 1.12
#: Wall-clock seconds, and intervals, after which a clock is believed.
_LEAST_SECONDS, _LEAST_INTERVALS = 0.2, 1
#: Intervals after which a clock that fits nothing is given up.
_MOST_INTERVALS = 4
#: Lines that are closer are of one report.
_SAME_SECONDS = 0.01
#: Larger numbers are seconds since the epoch of Unix.
_DATE = 1e8


class ScriptClock:
    """Compares what a script reports as its clock with the wall clock.

    A reported clock counts only once it agrees with the wall clock in one of the units and of the ways to
    count: seconds since the beginning, or of each epoch, minutes, a date.

    Args:
        habits: What is known of the script; gets the kind of its clock.
    """

    def __init__(self, habits: ScriptHabits) -> None:
        self._habits = habits
        self._first: tuple[float, float] | None = None  # its clock, the wall clock
        self._last: tuple[float, float] | None = None
        self._sum_before, self._sum = 0.0, 0.0
        self._read_at: float | None = None
        self._num_intervals = 0
        #: Whether what was read before has to be read again.
        self.has_changed = False

    def read(self, reported: float, wall: float) -> tuple[float | None, float | None]:
        """The seconds since the run began, and the time on an even clock, as far as they are known.

        Args:
            reported: What the script says.
            wall: When it said so, seconds on an even clock.
        """
        habits = self._habits
        if habits.clock is None:
            self._compare(reported, wall)
        if self._read_at is None or wall - self._read_at >= _SAME_SECONDS:
            self._sum += reported
        self._read_at = wall
        if habits.clock == "since the beginning":
            return reported * habits.clock_unit, None
        if habits.clock == "since the last report":
            return self._sum * habits.clock_unit, None
        if habits.clock == "date":
            return None, reported
        return None, None

    def _compare(self, reported: float, wall: float) -> None:
        habits = self._habits
        if reported > _DATE:
            self._settle("date", 1.0)
            return
        if self._first is None or self._last is None:
            self._first = self._last = (reported, wall)
            return
        if wall - self._last[1] < _SAME_SECONDS:
            return
        self._last = (reported, wall)
        self._num_intervals += 1
        self._sum_before += reported
        passed = wall - self._first[1]
        if passed < _LEAST_SECONDS or self._num_intervals < _LEAST_INTERVALS:
            return
        for unit in _UNITS:
            if _LEAST_RATIO <= unit * (reported - self._first[0]) / passed <= _MOST_RATIO:
                self._settle("since the beginning", unit)
                return
            if _LEAST_RATIO <= unit * self._sum_before / passed <= _MOST_RATIO:
                self._settle("since the last report", unit)
                return
        if self._num_intervals >= _MOST_INTERVALS:
            self._settle("refused", 1.0)
            habits.say(
                f"the script's clock was not used: it went on by {reported - self._first[0]:g} while "
                f"{passed:.1f} s passed, which is neither seconds since the beginning nor of each report; "
                "time "
                "is measured by the wall clock. Correct or remove workload.metrics.seconds"
            )

    def _settle(self, kind: ClockKind, unit: float) -> None:
        habits = self._habits
        habits.clock, habits.clock_unit = kind, unit
        # Before, the wall clock was used.
        self.has_changed = kind != "refused" and self._first is not None
        if kind == "since the last report":
            habits.say(f"the script's clock counts {_UNITS[unit]} since its last report: they are added up")
        elif kind == "since the beginning" and unit != 1.0:
            habits.say(f"the script's clock counts {_UNITS[unit]}: they are read as such")
        elif kind == "date":
            habits.say("the script's clock is a date: differences between dates are used")
