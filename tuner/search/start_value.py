"""Computes how far a run has come from the untrained model to the target, as a share from 0 to 1.

If the untrained model was not evaluated, its metric is estimated from the first evaluations of the runs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from tuner.analytic.laws import Array
from tuner.domain.workload import METRICS
from tuner.job import Job

#: A run counts as failed, and its first score is ignored, if this score is worse than the median of all first
#: scores by more than this number of median absolute deviations.
_BROKEN = 4.0
#: Lower bound of progress. A run with a lower value has not improved or has failed.
_LEAST_PROGRESS = -0.03
#: Upper bound of progress, to avoid overflows.
_MOST_PROGRESS = 1e9
#: The metric of the untrained model is estimated as worse than the worst first score by `_BEFORE_FIRST` times
#: the mean distance between neighboring first scores. This distance is at least `_LEAST_GAP` times the
#: distance from the worst first score to the target.
_BEFORE_FIRST, _LEAST_GAP = 0.5, 0.02


def start_value(first_values: Sequence[float]) -> float:
    """Returns the worst of the first scores of all runs, without those of failed runs.

    Args:
        first_values: The first score of each run, larger is better; at least one score.
    """
    values = np.asarray(first_values, dtype=float)
    median = float(np.median(values))
    deviation = float(np.median(np.abs(values - median)))
    return float(values[values >= median - _BROKEN * deviation - 1e-12].min())


def guessed_start(job: Job, first_values: Sequence[float]) -> float | None:
    """Estimates the metric of the untrained model from the first scores of the runs.

    The estimate is worse than the worst first score by half of the mean distance between neighboring first
    scores. With a single score, the distance from the score to the target is used instead. The estimate stays
    within the range of the metric, if the range is known.

    Args:
        job: The job, which defines the metric and the target.
        first_values: The first score of each run; may be empty.

    Returns:
        The estimate; None without any score.
    """
    if not first_values:
        return None
    goal, sign, metric = job.goal, job.goal.sign, METRICS.get(job.goal.metric)
    # A first score better than the target counts as equal to the target.
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
    """Computes how far each score is on the way from the untrained model to the target.

    The progress is (value - start) / (target - start), limited to the range from `_LEAST_PROGRESS` to
    `_MOST_PROGRESS`.

    Args:
        values: Scores, larger is better, `(num,)`.
        start: Score of the untrained model.
        target: The value that the metric has to reach, larger is better.

    Returns:
        The progress of each score: 0 for the untrained model and 1 at the target, `(num,)`.
    """
    span = target - start
    if span <= 0:
        return np.ones_like(values)
    with np.errstate(over="ignore"):  # a tiny span gives huge values, which are clamped
        return np.asarray(np.clip((values - start) / span, _LEAST_PROGRESS, _MOST_PROGRESS), dtype=float)
