"""Converts the metric values that a script reports to the unit of the job's target: fraction or percent."""

from __future__ import annotations

import math

from tuner.domain.workload import METRICS
from tuner.job.sections import GoalSection
from tuner.probes.commands.progress_line import ScriptLine
from tuner.probes.commands.script_habits import ScriptHabits

#: Texts in the names of metrics whose values are fractions between 0 and 1, and which many scripts print in
#: percent.
_FRACTIONS = (
    "acc", "top1", "top5", "top_1", "top_5", "top-1", "top-5", "prec", "recall", "f1", "auc", "auroc", "iou",
    "dice", "map", "error_rate", "err",
)  # fmt: skip
#: Largest number of NaN values at the beginning of a run that are skipped.
_MOST_UNDEFINED = 5
#: Paceline warns if this many values in a row are between 0 and 1 while the target is above 1.
_FEW = 3


class ScriptValues:
    """Converts reported metric values to the unit of the job's target.

    Args:
        habits: Facts about how the script reports; whether its values are in percent is added to them.
        goal: Metric and target of the job, which determine the unit and the valid range of values.
        was_finite: Whether earlier slices of the run have reported a finite value. If so, NaN values are no
            longer skipped.
    """

    def __init__(self, habits: ScriptHabits, goal: GoalSection, *, was_finite: bool) -> None:
        self._habits, self._goal = habits, goal
        known = METRICS.get(goal.metric)
        self._lower = known.lower if known is not None else -math.inf
        self._upper = known.upper if known is not None else math.inf
        name = goal.metric.lower()
        self._is_fraction = self._upper == 1.0 or (
            0.0 < goal.target <= 1.0 and any(part in name for part in _FRACTIONS)
        )
        self._was_finite = was_finite
        self._num_undefined = 0
        self._num_small, self._num_read = 0, 0

    def read(self, line: ScriptLine) -> float:
        """Returns the metric value of a line in the unit of the target.

        Args:
            line: A line with a metric value.

        Raises:
            ValueError: The value is outside of the metric's range, or is NaN and no finite value was
                reported before it.
        """
        value = line.value
        assert value is not None
        if math.isnan(value) and not self._was_finite and self._passes_undefined(line):
            self._num_undefined += 1
            raise ValueError(
                "the value is NaN and no number came before: the metric is taken as not yet defined"
            )
        if not math.isfinite(value):
            return value
        self._find_unit(line, value)
        if self._habits.is_percent:
            value /= 100.0
        if not self._lower <= value <= self._upper:
            raise ValueError(
                f"{self._goal.metric} = {value:g} is impossible: allowed are {self._lower:g} to "
                f"{self._upper:g}"
            )
        self._was_finite = True
        self._num_read += 1
        return value

    def _passes_undefined(self, line: ScriptLine) -> bool:
        if line.step == 0 or line.samples == 0 or line.epoch == 0:
            return True
        return self._goal.maximize and self._num_undefined < _MOST_UNDEFINED

    def _find_unit(self, line: ScriptLine, value: float) -> None:
        habits, goal = self._habits, self._goal
        if habits.is_percent is None and goal.target <= 1.0:
            is_beyond = self._is_fraction and 1.0 < value <= 100.0
            if line.has_percent_sign or is_beyond:
                habits.is_percent = True
                habits.say(
                    f"the script reports {goal.metric} in percent, such as {value:g}, and the target is a "
                    "fraction: values are divided by 100"
                )
        if goal.target > 1.0 and goal.maximize and not line.has_percent_sign:
            self._num_small += 0.0 <= value <= 1.0
            if self._num_small == self._num_read + 1 == _FEW:
                habits.say(
                    f"all values of {goal.metric} so far are between 0 and 1, such as {value:g}, but the "
                    f"target is {goal.target:g}: if the script reports fractions, set goal.target = "
                    f"{goal.target / 100:g}"
                )
