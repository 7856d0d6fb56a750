"""Extrapolates every started run to the target, with the error that all runs have in common."""

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

#: Share of the variance of extrapolation errors that all runs of a workload have in common: the template
#: is wrong for all of them alike. Compared with real curves (truncated at random, up to eight of a workload
#: at a time) errors were 0.54 early, of which 0.30 were a run's own.
_COMMON_SHARE = 0.7
#: A run has come further than one that turned back if it closed this share of what that one lacked.
FURTHER_SHARE = 0.2
#: Chance that another run reaches the target all the same, for each run that turned back.
_REACHES_ALL_THE_SAME = 0.4
#: By how much levels at which runs turn back are expected to differ, in progress.
_LEVEL_SD = 0.03


@dataclass(frozen=True, kw_only=True)
class Arrivals:
    """Draws of log samples to target for every run with an evaluation, joint over runs.

    Whether all runs reach the target early or late matters to predictions, not to the
    choice between runs; so the two parts of the error are stored separately.

    Args:
        median: `(num_runs,)`; infinite if nothing is known.
        own: Each run's own deviation from median and common part, `(NUM_DRAWS, num_runs)`.
        common: The deviation all runs share, `(NUM_DRAWS,)`.
        unreachable: Chance that a run never arrives, `(num_runs,)`.
        unreachable_elsewhere: Chance that a run which was not started, or has no score, never arrives.
    """

    median: Array
    own: Array
    common: Array
    unreachable: Array
    unreachable_elsewhere: float


def extrapolate(runs: Sequence[RunEvidence], shapes: Array = PRIOR) -> Arrivals:
    """Extrapolates every run's curve to the target, along the template that all share.

    Args:
        runs: What was run; those without an evaluation, and those that diverged, are skipped.
        shapes: Probability of each shape of a curve before, `(num_shapes,)`.
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
    # Two normals are shared by all runs, two are each run's own.
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
        # Runs that are sure of themselves say most of what is common.
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
    """Chance that a run which has not come clearly further ends below the target, too.

    Each run that turned back says so. The further apart they ended, the more another one may end higher:
    levels are taken for normal, with `_LEVEL_SD` as one observation of the spread (Student's t).

    Args:
        levels: Progress at which runs turned back or levelled off; 0 without any.
    """
    from scipy.special import stdtr  # takes a while to import; only models need it

    num = len(levels)
    if not num:
        return 0.0
    variance = (_LEVEL_SD**2 + float(np.var(levels)) * num) / num
    distance = (1.0 - float(np.mean(levels))) / math.sqrt(variance * (1.0 + 1.0 / num))
    return min(1.0 - _REACHES_ALL_THE_SAME**num, float(stdtr(num, distance)))
