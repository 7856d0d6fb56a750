"""Correction of forecasts' widths by how wrong earlier forecasts were, stored with each study.

The error of a forecast is z, the logarithm of the measured time over the predicted median in standard
deviations of the side of the interval on which it lies. Were the intervals right, the mean of z^2 would be 1.
Each study stores that mean over its runs that reached the target. Forecasts of later studies of the same kind
are stretched around their median by

    s = sqrt((w + sum_i z_i^2) / (w + n)),

with n runs and w runs that count as if the intervals had been right (a normal's scale with a conjugate prior;
Gelman et al. 2013, section 2.6). Only forecasts count that knew at most a quarter of their run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import NINETY_PERCENT, Array
from tuner.analytic.predictor import Forecast
from tuner.job import Job
from tuner.ledger import FitRecord, StudyRecord
from tuner.ledger.records import EARLY_SHARE, PredictedAgainstMeasured
from tuner.search.state import SearchState

#: Name of the stored record, and of its figure.
MODEL, _SQUARED_ERROR = "calibration", "mean squared error"
#: So many runs count as if the intervals had been right.
_PRIOR_RUNS = 6.0
#: The factor stays within these bounds, and one run's error counts no more than this.
_LEAST, _MOST, _MOST_SQUARED = 0.6, 3.0, 25.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """By how much forecasts are stretched.

    Args:
        num_runs: Measured runs of earlier studies of this kind.
        sum_squared: Sum of their squared errors, in standard deviations.
    """

    num_runs: int = 0
    sum_squared: float = 0.0

    @property
    def scale(self) -> float:
        """Factor of the width on a logarithmic scale."""
        found = math.sqrt((_PRIOR_RUNS + self.sum_squared) / (_PRIOR_RUNS + self.num_runs))
        return min(max(found, _LEAST), _MOST)

    def stretched(self, forecast: Forecast, elapsed: Array) -> Forecast:
        """The forecast with the spread of what is left of each run stretched around its median.

        Args:
            forecast: The draws.
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
    """The kind of job that shares a calibration: recorded runs, a script of the user's, or a workload."""
    if job.probe.recording is not None:
        return "recorded"
    return "command" if job.runs_command else "workload"


def learnt_calibration(fits: Sequence[FitRecord], kind: str) -> Calibration:
    """What earlier studies of a kind stored.

    Args:
        fits: Of `Ledger.past_fits`, without those of the study that asks.
        kind: Of `kind_of`.
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
    """How wrong a study's early forecasts were; None where no run with one reached the target.

    Args:
        study: The study.
        state: Where it stands.
        checked: Its predictions with what was measured.
        now: Seconds since the epoch.
        applied: What the predictions were stretched by; errors count in units before it.
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
    """z^2 of one prediction before it was stretched; None where its interval has no finite width."""
    quantiles = checked.prediction.quantiles
    lower, median, upper = (quantiles[level] for level in sorted(quantiles))
    end = upper if checked.measured_seconds > median else lower
    if not (math.isfinite(median) and math.isfinite(end) and 0.0 < lower < median < upper):
        return None
    sd = abs(math.log(end / median)) / (NINETY_PERCENT * scale)
    return min((math.log(checked.measured_seconds / median) / sd) ** 2, _MOST_SQUARED)
