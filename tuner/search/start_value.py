"""Start of curves: estimate the metric of the untrained model if it was not scored."""

from __future__ import annotations

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
#: A model started worse than its worst first scoring by this share of the mean distance of first scorings,
#: which counts as no less than this share of what the worst one lacks.
_BEFORE_FIRST, _LEAST_GAP = 0.5, 0.02


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
    """The metric of the untrained model where it was never scored.

    It is worse than the worst first scoring by half of the mean distance between them or, of a single one, of
    what it lacks. It is no worse than a known metric can be.

    Args:
        job: The job.
        first_values: The first scoring of each run; may be empty, which gives None.
    """
    if not first_values:
        return None
    goal, sign, metric = job.goal, job.goal.sign, METRICS.get(job.goal.metric)
    # A first scoring past the target says nothing of where the run started.
    firsts = [min(sign * value, sign * goal.target) for value in first_values]
    worst = start_value(firsts)
    usual = [value for value in firsts if value >= worst]
    lacks = sign * goal.target - worst or max(_LEAST_GAP * abs(goal.target), 1e-6)
    gap = (max(usual) - worst) / (len(usual) - 1) if len(usual) > 1 else lacks
    guess = worst - _BEFORE_FIRST * max(gap, _LEAST_GAP * lacks)
    if metric is not None:
        guess = max(guess, sign * (metric.lower if goal.maximize else metric.upper))
    return sign * guess


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
