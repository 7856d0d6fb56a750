"""Calibration: correct the widths of forecasts by the errors of forecasts in earlier studies.

The error z of a forecast is the log ratio of the measured time to the predicted median, divided by the
standard deviation of the interval on that side. If the intervals are right, the mean of z^2 is 1. Each study
stores this mean over its runs that reached the target. Later studies of the same kind stretch their forecasts
around the median by

    s = sqrt((w + sum_i z_i^2) / (w + n)),

where n is the number of measured runs, and w is the weight of a prior for right intervals, in runs (scale of
a normal distribution with a conjugate prior; Gelman et al. 2013, section 2.6). Only forecasts made in the
first quarter of their run count.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import NINETY_PERCENT, Array
from tuner.analytic.predictor import Forecast
from tuner.domain.ledger import EARLY_SHARE, FitRecord, PredictedAgainstMeasured, StudyRecord
from tuner.job import Job
from tuner.search.state import SearchState

#: Names of the stored record and of its parameter.
MODEL, _SQUARED_ERROR = "calibration", "mean squared error"
#: Weight w of the prior, in runs.
_PRIOR_RUNS = 6.0
#: Bounds of the factor s, and the maximum z^2 of one run.
_LEAST, _MOST, _MOST_SQUARED = 0.6, 3.0, 25.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Errors of earlier forecasts, and the factor by which new forecasts are stretched.

    Args:
        num_runs: Number of measured runs in earlier studies of this kind.
        sum_squared: Sum of their squared errors z^2.
    """

    num_runs: int = 0
    sum_squared: float = 0.0

    @property
    def scale(self) -> float:
        """Factor s of the width on a logarithmic scale."""
        found = math.sqrt((_PRIOR_RUNS + self.sum_squared) / (_PRIOR_RUNS + self.num_runs))
        return min(max(found, _LEAST), _MOST)

    def stretched(self, forecast: Forecast, elapsed: Array) -> Forecast:
        """Stretches the remaining time of each run around its median.

        Args:
            forecast: The forecast to stretch.
            elapsed: Training seconds of each candidate's run, 0 if none was started, `(num,)`.
        """
        left = np.exp(np.minimum(forecast.log_seconds, 600.0)) - elapsed
        known = (left > 0.0).all(axis=0)
        if self.scale == 1.0 or not known.any():
            return forecast
        logs = np.log(left[:, known])
        middle = np.median(logs, axis=0)
        longer = elapsed[known] + np.exp(np.minimum(middle + self.scale * (logs - middle), 600.0))
        stretched = forecast.log_seconds.copy()
        stretched[:, known] = np.log(longer)
        return replace(forecast, log_seconds=stretched)


NO_CALIBRATION = Calibration()


def kind_of(job: Job) -> str:
    """Kind of a job; jobs of a kind share a calibration: `recorded`, `command` or `workload`."""
    if job.probe.recording is not None:
        return "recorded"
    return "command" if job.runs_command else "workload"


def learnt_calibration(fits: Sequence[FitRecord], kind: str) -> Calibration:
    """Calibration from the records of earlier studies of one kind.

    Args:
        fits: Records from `Ledger.past_fits`, without those of the present study.
        kind: Kind of the job, from `kind_of`.
    """
    stored = [fit for fit in fits if fit.model == MODEL and fit.summary.get("kind") == kind]
    return Calibration(
        num_runs=sum(fit.num_slices for fit in stored),
        sum_squared=sum(fit.num_slices * float(fit.parameters[_SQUARED_ERROR][0]) for fit in stored),
    )


def calibration_record(
    study: StudyRecord,
    state: SearchState,
    checked: Sequence[PredictedAgainstMeasured],
    now: float,
    applied: Calibration = NO_CALIBRATION,
) -> FitRecord | None:
    """A record of the errors of a study's early forecasts; None if no run with one reached the target.

    Args:
        study: The study.
        state: Its state.
        checked: Its predictions with the measured times.
        now: Seconds since the epoch.
        applied: The calibration that the predictions used; errors are stored as without it.
    """
    by_run: dict[str, list[float]] = {}
    for one in checked:
        error = _squared_error(one, applied.scale)
        if one.share_observed <= EARLY_SHARE and error is not None:
            by_run.setdefault(one.prediction.configuration.key, []).append(error)
    if not by_run:
        return None
    errors = [float(np.mean(found)) for found in by_run.values()]
    return FitRecord(
        study_id=study.study_id,
        fingerprint=study.fingerprint,
        model=MODEL,
        created_at=now,
        num_slices=len(errors),
        parameters={_SQUARED_ERROR: (float(np.mean(errors)), float(np.std(errors)))},
        summary={"kind": kind_of(state.job)},
    )


def _squared_error(checked: PredictedAgainstMeasured, scale: float) -> float | None:
    """z^2 of one prediction before stretching; None if its interval is not finite."""
    quantiles = checked.prediction.quantiles
    lower, median, upper = (quantiles[level] for level in sorted(quantiles))
    end = upper if checked.measured_seconds > median else lower
    if not (math.isfinite(median) and math.isfinite(end) and 0.0 < lower < median < upper):
        return None
    sd = abs(math.log(end / median)) / (NINETY_PERCENT * scale)
    return min((math.log(checked.measured_seconds / median) / sd) ** 2, _MOST_SQUARED)
