"""Extrapolates the learning curve of every run to the target, to predict the samples that are needed.

A run has turned back if its metric has become clearly worse than its best value, or has levelled off
(`RunEvidence.turned_back`). A run has collapsed if it lost most of its progress
(`RunEvidence.has_collapsed`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.curve_template import (
    FORM_SD,
    PRIOR,
    ahead_of,
    passage_of,
    template_of,
)
from tuner.analytic.laws import Array
from tuner.analytic.plateau import TRAINED, chance_of_never
from tuner.analytic.quasi_random import NUM_DRAWS, spread_normals
from tuner.analytic.rate_edge import RunEvidence

#: Share of the variance of extrapolation errors that all runs of a workload have in common, because the
#: template of learning curves has the same error for all of them. On real curves that were truncated at
#: random, with up to eight runs per workload, the standard deviation of the errors was 0.54 early in a run,
#: and that of the part that differed between runs was 0.30.
_COMMON_SHARE = 0.7
#: A run has come clearly further than a run that turned back if its progress is above the other run's by this
#: share of the distance that the other run still had to the target.
FURTHER_SHARE = 0.2
#: Lower limit of the probability that a run reaches the target if one other run turned back. If n other runs
#: turned back, the limit is this number to the power n.
_REACHES_ALL_THE_SAME = 0.4
#: Prior standard deviation of the level of progress at which a run turns back, between runs.
_LEVEL_SD = 0.03


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Prediction of how many samples each run needs to its target, as posterior samples.

    `median`, `own` and `common` refer to the logarithm of the number of samples; a posterior sample of it is
    median + own + common. The error `common` is stored separately, since it is the same for all runs and does
    not affect the choice between them.

    Args:
        median: Median for each run, `(num_runs,)`; infinite for a run without an evaluation.
        own: Posterior samples of each run's error without the common error, `(NUM_DRAWS, num_runs)`.
        common: Posterior samples of the error that all runs have in common, `(NUM_DRAWS,)`.
        unreachable: Probability that the run never reaches the target, `(num_runs,)`.
        unreachable_elsewhere: The same probability for a configuration that was not started, and for a run
            without a score.
    """

    median: Array
    own: Array
    common: Array
    unreachable: Array
    unreachable_elsewhere: float


def extrapolate(runs: Sequence[RunEvidence], shapes: Array = PRIOR) -> Arrivals:
    """Extrapolates the learning curve of every run to the target, with the template of `curve_template`.

    Args:
        runs: The runs of one workload. Diverged runs and runs without an evaluation are not extrapolated.
        shapes: Prior probability of each learning-curve shape in `curve_template.SHAPES`, `(num_shapes,)`.
    """
    num = len(runs)
    passages = {
        i: passage_of(run.samples, run.progress)
        for i, run in enumerate(runs)
        if len(run.samples) and not run.diverged
    }
    template = template_of(list(passages.values()), shapes)
    median, unreachable = np.full(num, np.inf), np.full(num, np.nan)
    deviation = np.zeros((NUM_DRAWS, num))
    # All runs share the first two columns. Each run gets its own shift of the last two.
    normals = spread_normals(NUM_DRAWS, 4)
    open_runs = []
    turned = [
        passage.progress
        for i, passage in passages.items()
        if runs[i].turned_back and not runs[i].has_collapsed
    ]
    furthest_turned = max(turned, default=-math.inf)
    for position, (i, passage) in enumerate(passages.items()):
        run = runs[i]
        if run.samples_to_target is not None:
            median[i], unreachable[i] = np.log(max(run.samples_to_target, 1.0)), 0.0
            continue
        ahead = ahead_of(passage, template)
        median[i] = passage.log_seen + ahead.folds
        unreachable[i] = chance_of_never(run.samples, run.progress, TRAINED)
        if run.ended or run.turned_back:
            unreachable[i] = 1.0
        if passage.progress <= furthest_turned + FURTHER_SHARE * max(1.0 - furthest_turned, 0.0):
            unreachable[i] = max(unreachable[i], others_never(turned))
        own = np.roll(normals[:, 2:], 37 * position + 1, axis=0)
        deviation[:, i] = (
            ahead.form_sd
            * (math.sqrt(_COMMON_SHARE) * normals[:, 0] + math.sqrt(1 - _COMMON_SHARE) * own[:, 0])
            + ahead.common_sd * normals[:, 1]
            + math.hypot(ahead.place_sd, FORM_SD) * own[:, 1]
        )
        open_runs.append(i)
    common = np.zeros(NUM_DRAWS)
    if open_runs and all(run.samples_to_target is None for run in runs):
        # Weighted mean of the runs' errors: runs with a small variance have a large weight.
        weights = 1.0 / (0.05**2 + deviation[:, open_runs].var(axis=0))
        common = deviation[:, open_runs] @ (weights / weights.sum())
    deviation[:, open_runs] -= common[:, None]
    speaking = [i for i in passages if not (runs[i].turned_back and runs[i].has_collapsed)]
    elsewhere = float(unreachable[speaking].min()) if speaking else TRAINED.unknown
    if turned:
        elsewhere = min(elsewhere, others_never(turned))
    return Arrivals(
        median=median,
        own=deviation,
        common=common,
        unreachable=np.where(np.isnan(unreachable), elsewhere, unreachable),
        unreachable_elsewhere=elsewhere,
    )


def others_never(levels: Sequence[float]) -> float:
    """Estimates how probably a run misses the target if other runs stopped improving before they reached it.

    The probability applies to a run that has not come clearly further than the other runs (`FURTHER_SHARE`).
    It grows with the number of other runs, and falls with the spread of the levels at which they stopped
    improving. It is 0 if there are none. The levels are modeled as normally distributed with unknown mean and
    variance (Student's t); `_LEVEL_SD` counts as one additional observation of the standard deviation.

    Args:
        levels: Best training progress of each other run that stopped improving, 0 at the first value of the
            metric and 1 at the target.
    """
    from scipy.special import stdtr  # takes a while to import; only models need it

    num = len(levels)
    if not num:
        return 0.0
    variance = (_LEVEL_SD**2 + float(np.var(levels)) * num) / num
    distance = (1.0 - float(np.mean(levels))) / math.sqrt(variance * (1.0 + 1.0 / num))
    return min(1.0 - _REACHES_ALL_THE_SAME**num, float(stdtr(num, distance)))
