"""Learning-curve extrapolation: posterior samples of the number of samples to target, for every run."""

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
#: template is wrong for all of them. On real curves, truncated at random, with up to eight runs per workload,
#: the standard deviation was 0.54 early in a run. The part specific to each run was 0.30.
_COMMON_SHARE = 0.7
#: A run has come clearly further than a run that turned back if it also covered this share of the distance
#: that the other run lacked to the target.
FURTHER_SHARE = 0.2
#: Probability that another run reaches the target although one run turned back. If n runs turned back, the
#: probability is this number to the power n.
_REACHES_ALL_THE_SAME = 0.4
#: Expected standard deviation between the levels of progress at which runs turn back.
_LEVEL_SD = 0.03


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """The expected number of samples to target of all runs, with joint posterior samples of its error.

    `median`, `own` and `common` refer to the logarithm of the number of samples. The error that all runs have
    in common is separate, since it does not affect the choice between runs.

    Args:
        median: Median for each run, `(num_runs,)`; infinite for a run without an evaluation.
        own: Error of each run without the common error, `(NUM_DRAWS, num_runs)`.
        common: Error that all runs have in common, `(NUM_DRAWS,)`.
        unreachable: Probability that a run never reaches the target, `(num_runs,)`.
        unreachable_elsewhere: This probability for a run that was not started or has no score.
    """

    median: Array
    own: Array
    common: Array
    unreachable: Array
    unreachable_elsewhere: float


def extrapolate(runs: Sequence[RunEvidence], shapes: Array = PRIOR) -> Arrivals:
    """Extrapolates the learning curve of every run to the target, along the template of the workload.

    Args:
        runs: The runs. Diverged runs and runs without an evaluation are not extrapolated.
        shapes: Prior probability of each shape of a curve, `(num_shapes,)`.
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
    """Returns the probability that a run ends below the target, as other runs did that turned back.

    The probability applies to a run that has not come clearly further than those runs. It grows with their
    number and falls with the spread of the levels at which they turned back. Levels are modeled as normal,
    with `_LEVEL_SD` as one additional observation of their spread (Student's t). It is 0 if no run turned
    back.

    Args:
        levels: Progress at which each run turned back or leveled off.
    """
    from scipy.special import stdtr  # takes a while to import; only models need it

    num = len(levels)
    if not num:
        return 0.0
    variance = (_LEVEL_SD**2 + float(np.var(levels)) * num) / num
    distance = (1.0 - float(np.mean(levels))) / math.sqrt(variance * (1.0 + 1.0 / num))
    return min(1.0 - _REACHES_ALL_THE_SAME**num, float(stdtr(num, distance)))
