"""Calibration: widen or narrow forecast intervals, based on the errors of forecasts in earlier studies.

A forecast is a median and a central 90% interval of the time to target. The error z of a forecast is the
logarithm of the ratio of the measured time to the predicted median, divided by the standard deviation that
corresponds to the upper half of the interval (if the measured time is longer) or to the lower half. If
forecasts are right, the mean of z^2 is 1. Each study stores the mean of z^2 over its runs that reached the
target. Later studies of the same kind multiply the widths of their intervals, on a logarithmic scale, by

    s = sqrt((w + sum_i z_i^2) / (w + n)),

where n is the number of measured runs, and w is the weight of the prior assumption that the intervals are
right, as a number of runs (scale of a normal distribution with a conjugate prior; Gelman et al. 2013,
section 2.6). Only forecasts from the first quarter of the training time of their run are used, and those of
recommendations whose real time to target was reported later.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from tuner.analytic.laws import NINETY_PERCENT, Array
from tuner.analytic.predictor import Forecast
from tuner.domain.ledger import EARLY_SHARE, FitRecord, PredictedAgainstMeasured, StudyRecord
from tuner.domain.recommendation import Estimate
from tuner.job import Job
from tuner.search.state import SearchState

#: Name in the ledger under which the errors are stored (as those of a model), and the name of their value.
MODEL, _SQUARED_ERROR = "calibration", "mean squared error"
#: Name under which the errors of recommendations are stored whose real time to target was reported.
OUTCOMES_MODEL = "calibration by outcomes"
#: Weight w of the prior assumption, as a number of runs.
_PRIOR_RUNS = 6.0
#: Minimum and maximum of the factor s, and maximum z^2 of one forecast.
_LEAST, _MOST, _MOST_SQUARED = 0.6, 3.0, 25.0


@dataclass(frozen=True, kw_only=True)
class Calibration:
    """Errors of forecasts in earlier studies, from which the widths of new forecast intervals are corrected.

    Args:
        num_runs: Number n of runs that reached the target in earlier studies of the same kind of job.
        sum_squared: Sum of the squared errors z^2 of these runs.
    """

    num_runs: int = 0
    sum_squared: float = 0.0

    @property
    def scale(self) -> float:
        """Factor s by which the width of a forecast interval is multiplied on a logarithmic scale."""
        found = math.sqrt((_PRIOR_RUNS + self.sum_squared) / (_PRIOR_RUNS + self.num_runs))
        return min(max(found, _LEAST), _MOST)

    def stretched(self, forecast: Forecast, elapsed: Array) -> Forecast:
        """Multiplies the widths of the forecasts of the remaining time to target by `scale`.

        The medians stay the same.

        Args:
            forecast: Posterior samples of the time to target.
            elapsed: Training seconds of each candidate's run so far; 0 if the run was not started, `(num,)`.

        Returns:
            The posterior samples with the new width.
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
    """Returns the kind of a job: `recorded`, `command` or `workload`.

    Jobs of the same kind share the calibration of their forecast intervals.
    """
    if job.probe.recording is not None:
        return "recorded"
    return "command" if job.runs_command else "workload"


def learnt_calibration(fits: Sequence[FitRecord], kind: str) -> Calibration:
    """Computes the correction of forecast intervals from the records of earlier studies of the same kind.

    Args:
        fits: Records from `Ledger.past_fits`, without those of the present study.
        kind: Kind of the present job, from `kind_of`.
    """
    models = (MODEL, OUTCOMES_MODEL)
    stored = [fit for fit in fits if fit.model in models and fit.summary.get("kind") == kind]
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
    """Makes a record of how wrong the early forecasts of a study were, for use by later studies.

    Args:
        study: The study.
        state: State of the study at its end.
        checked: Predictions of the study, each with the measured time to target of its run.
        now: Present time, in seconds since the Unix epoch.
        applied: The calibration that the predictions used. Its effect is removed from the stored errors.

    Returns:
        The record; None if no run that had an early forecast reached the target.
    """
    by_run: dict[str, list[float]] = {}
    for one in checked:
        error = _squared_error(one, applied.scale)
        if one.share_observed <= EARLY_SHARE and error is not None:
            by_run.setdefault(one.prediction.configuration.key, []).append(error)
    errors = [float(np.mean(found)) for found in by_run.values()]
    return _record(MODEL, study, kind_of(state.job), errors, now)


def outcomes_record(study: StudyRecord, kind: str, errors: Sequence[float], now: float) -> FitRecord | None:
    """Makes a record of how wrong a study's forecasts were for trainings after its recommendation.

    Args:
        study: The study.
        kind: Kind of the job, from `kind_of`.
        errors: The squared error of each training, from `outcome_error`.
        now: Present time, in seconds since the Unix epoch.

    Returns:
        The record; None if there is no error.
    """
    return _record(OUTCOMES_MODEL, study, kind, errors, now)


def outcome_error(predicted: Estimate, seconds: float, *, reached: bool, scale: float) -> float | None:
    """Computes the squared error z^2 of the forecast of a training after a recommendation.

    Args:
        predicted: The forecast of the time to target.
        seconds: Training seconds to the target, or to the end if it was not reached.
        reached: Whether the training reached the target.
        scale: The factor s by which the interval of the forecast was multiplied.

    Returns:
        The squared error; None if nothing follows from the training. A training that was ended within the
        interval says little. One that was ended after the interval counts as if it had reached the target
        then.
    """
    if not reached and seconds <= predicted.upper:
        return None
    return _error((predicted.lower, predicted.median, predicted.upper), seconds, scale)


def _record(
    model: str, study: StudyRecord, kind: str, errors: Sequence[float], now: float
) -> FitRecord | None:
    if not errors:
        return None
    return FitRecord(
        study_id=study.study_id,
        fingerprint=study.fingerprint,
        model=model,
        created_at=now,
        num_slices=len(errors),
        parameters={_SQUARED_ERROR: (float(np.mean(errors)), float(np.std(errors)))},
        summary={"kind": kind},
    )


def _squared_error(checked: PredictedAgainstMeasured, scale: float) -> float | None:
    """Computes the squared error z^2 of one forecast, as it would be without the calibration.

    Args:
        checked: The prediction, with the measured time to target.
        scale: The factor s by which the interval of the forecast was multiplied.

    Returns:
        The squared error; None if the interval is not finite, or if its three quantiles do not increase.
    """
    quantiles = checked.prediction.quantiles
    lower, median, upper = (quantiles[level] for level in sorted(quantiles))
    return _error((lower, median, upper), checked.measured_seconds, scale)


def _error(quantiles: tuple[float, float, float], measured_seconds: float, scale: float) -> float | None:
    lower, median, upper = quantiles
    end = upper if measured_seconds > median else lower
    if not (math.isfinite(median) and math.isfinite(end) and 0.0 < lower < median < upper):
        return None
    sd = abs(math.log(end / median)) / (NINETY_PERCENT * scale)
    return min(((math.log(measured_seconds) - math.log(median)) / sd) ** 2, _MOST_SQUARED)
