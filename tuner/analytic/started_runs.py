"""Observations of samples to target from started runs, with their extrapolation errors.

A run in progress counts as one that will reach the target. A probability that its curve levels off below the
target cost more than it saved in replays of recorded searches.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tuner.analytic.curve_template import FORM_SD, Passage, Template, ahead_of, template_of
from tuner.analytic.slopes import Observations

#: Additional e-folds of samples, their minimum and standard deviation, for a run that ended before the
#: target.
_ENDED_FOLDS, _ENDED_LEAST, _ENDED_SD = 1.0, 0.3, 0.8
_ARRIVED_SD = 0.02


@dataclass(frozen=True, kw_only=True)
class StartedRun:
    """A run with at least one evaluation.

    Args:
        row: Index of its candidate.
        passage: When it passed each level of progress.
        samples_to_target: Samples at which it reached the target; None if it has not.
        ended: Whether it ended without reaching the target, or failed.
    """

    row: int
    passage: Passage
    samples_to_target: float | None
    ended: bool


def observed_by(runs: Sequence[StartedRun]) -> Observations:
    """Observations of log samples to target from all started runs.

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
    """Value, standard deviation of its own error, and standard deviation of the common error."""
    seen = run.passage.log_seen
    if run.samples_to_target is not None:
        return math.log(max(run.samples_to_target, 1.0)), _ARRIVED_SD, 0.0
    ahead = ahead_of(run.passage, template)
    if run.ended:
        return max(seen + ahead.folds, seen + _ENDED_LEAST) + _ENDED_FOLDS, _ENDED_SD, 0.0
    return seen + ahead.folds, math.hypot(ahead.form_sd, ahead.place_sd, FORM_SD), ahead.common_sd
