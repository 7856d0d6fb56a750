"""Estimates the number of samples to target of started runs, as observations for a linear regression.

The estimates assume that every run in progress will reach the target. A version that took into account that a
learning curve may level off below the target made replayed searches more expensive.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.curve_template import FORM_SD, Passage, Template, ahead_of, template_of
from tuner.analytic.slopes import Observations

#: A run that ended before the target is assumed to need `_ENDED_FOLDS` e-folds (factors of e) of samples more
#: than its learning curve suggests, and at least `_ENDED_LEAST` + `_ENDED_FOLDS`. `_ENDED_SD` is the standard
#: deviation.
_ENDED_FOLDS, _ENDED_LEAST, _ENDED_SD = 1.0, 0.3, 0.8
_ARRIVED_SD = 0.02


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run with at least one evaluation, whose number of samples to target is to be estimated.

    Args:
        row: Index of the run's configuration in the list of candidates.
        passage: The number of samples at which the run first reached each level of training progress.
        samples_to_target: Number of samples processed when the run reached the target; None if it has not.
        ended: Whether the run ended without reaching the target, or failed.
    """

    row: int
    passage: Passage
    samples_to_target: float | None
    ended: bool


def observed_by(runs: Sequence[StartedRun]) -> Observations:
    """Estimates the logarithm of samples to target of every started run, for the fit of a regression.

    Args:
        runs: Runs with at least one evaluation; may be empty.
    """
    template = template_of([run.passage for run in runs])
    columns = np.array([_observation(run, template) for run in runs], dtype=float).reshape(-1, 3)
    return Observations(
        rows=np.array([run.row for run in runs], dtype=np.intp),
        values=columns[:, 0],
        noise_sd=columns[:, 1],
        common_sd=columns[:, 2],
    )


def _observation(run: StartedRun, template: Template) -> tuple[float, float, float]:
    """Estimates the logarithm of a run's samples to target; returns it with two standard deviations.

    The first standard deviation is that of the error of this run alone. The second is that of the error that
    all unfinished runs have in common.
    """
    seen = run.passage.log_seen
    if run.samples_to_target is not None:
        return math.log(max(run.samples_to_target, 1.0)), _ARRIVED_SD, 0.0
    ahead = ahead_of(run.passage, template)
    if run.ended:
        return max(seen + ahead.folds, seen + _ENDED_LEAST) + _ENDED_FOLDS, _ENDED_SD, 0.0
    return seen + ahead.folds, math.hypot(ahead.form_sd, ahead.place_sd, FORM_SD), ahead.common_sd
