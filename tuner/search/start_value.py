"""Estimate the metric of the untrained model if it was not scored, and the progress of scores from there."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.analytic.laws import Array
from tuner.domain.workload import METRICS
from tuner.job import Job

#: A first score is of a failed run if it is worse than the median by more than this many median deviations.
_BROKEN = 4.0
#: Lower bound of progress; lower values only show that a run is stuck or failed.
_LEAST_PROGRESS = -0.03
#: Upper bound of progress; higher values add no information.
_MOST_PROGRESS = 1e9
#: The untrained model is taken to be worse than the worst first score by this share of the mean distance
#: between first scores. This distance is at least the second share of the way from there to the target.
_BEFORE_FIRST, _LEAST_GAP = 0.5, 0.02


def start_value(first_values: Sequence[float]) -> float:
    """The worst first score of all runs, without failed runs.

    Args:
        first_values: First scores of the runs, larger is better; at least one.
    """
    values = np.asarray(first_values, dtype=float)
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return float(values[values >= median - _BROKEN * deviation - 1e-12].min())


def guessed_start(job: Job, first_values: Sequence[float]) -> float | None:
    """Estimates the metric of the untrained model if it was never scored; None without any score.

    The estimate is worse than the worst first score, by half of the mean distance between first scores. With
    a single score, the distance to the target is used instead. The estimate stays within the metric's range,
    if this is known.

    Args:
        job: The job.
        first_values: The first score of each run; may be empty.
    """
    if not first_values:
        return None
    goal, sign, metric = job.goal, job.goal.sign, METRICS.get(job.goal.metric)
    # A first score past the target says nothing about where the run started.
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
    """Progress from the untrained model to the target: (value - start) / (target - start), clamped.

    Args:
        values: Scores, larger is better, `(num,)`.
        start: Score of the untrained model.
        target: The target.

    Returns:
        The progress; 0 is the start and 1 the target, `(num,)`.
    """
    span = target - start
    if span <= 0:
        return np.ones_like(values)
    with np.errstate(over="ignore"):  # a tiny span gives huge values, which are clamped
        return np.asarray(np.clip((values - start) / span, _LEAST_PROGRESS, _MOST_PROGRESS), dtype=float)
