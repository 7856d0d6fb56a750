"""Start of curves: estimate the metric of the untrained model if it was not scored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tuner.analytic.laws import Array
from tuner.domain.workload import METRICS
from tuner.job import Job

#: First scorings so many median deviations worse than the median are of runs that broke down.
_BROKEN = 4.0
#: Progress below this only shows that a run is stuck or broke down.
_LEAST_PROGRESS = -0.03
#: More than this adds no information either.
_MOST_PROGRESS = 1e9
#: How much worse than its first scoring a model started, over what was left to the target then.
_BEFORE_FIRST = 0.1


def start_value(first_values: Sequence[float]) -> float:
    """The worst of the first scorings, less those of runs that broke down.

    Args:
        first_values: Of the metric, larger being better, at least one.
    """
    values = np.asarray(first_values, dtype=float)
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return float(values[values >= median - _BROKEN * deviation - 1e-12].min())


def guessed_start(job: Job, first_values: Sequence[float]) -> float | None:
    """The metric of the untrained model where a script never scored it; None where one always does.

    The worst that a known metric can be, else somewhat worse than the worst first scoring.

    Args:
        job: The job.
        first_values: The first scoring of each run; may be empty, which gives None.
    """
    goal, metric = job.goal, METRICS.get(job.goal.metric)
    if not job.runs_command or not first_values:
        return None
    worst = None if metric is None else metric.lower if goal.maximize else metric.upper
    sign = 1.0 if goal.maximize else -1.0
    first = sign * start_value([sign * value for value in first_values])
    if worst is not None and math.isfinite(worst):
        return first - (first - worst) / (len(first_values) + 1)
    gap = max(abs(goal.target - first), 0.1 * abs(goal.target), 1e-6)
    # A first scoring past the target says nothing of where the run started.
    started = first if sign * (goal.target - first) > 0 else goal.target
    return started - sign * _BEFORE_FIRST * gap


def progress_of(values: Array, start: float, target: float) -> Array:
    """(value - start) / (target - start), clamped to its informative range; 1 is the target.

    Args:
        values: Of the metric, larger being better.
        start: Of the untrained model.
        target: That counts as reached.
    """
    span = target - start
    if span <= 0:
        return np.ones_like(values)
    with np.errstate(over="ignore"):  # a span of next to nothing is passed without measure
        return np.asarray(np.clip((values - start) / span, _LEAST_PROGRESS, _MOST_PROGRESS), dtype=float)
