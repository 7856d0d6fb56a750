"""Store a search's predictions and model fits in the ledger."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.analytic.predictor import Forecast
from tuner.ledger import FitRecord, Ledger, PredictionRecord, StudyRecord
from tuner.search.beliefs import Beliefs
from tuner.search.state import SearchState, run_of

Array = npt.NDArray[np.float64]

#: Levels at which predictions are stored: the median and the central 90% interval.
LEVELS = (0.05, 0.5, 0.95)
_MOST_STORED = 12


def remember_beliefs(
    ledger: Ledger,
    study: StudyRecord,
    state: SearchState,
    beliefs: Beliefs,
    now: float,
    *,
    also: Configuration | None = None,
) -> None:
    """Stores the predictions that matter and both fits.

    It stores those of every started run, of the present settings, of the configurations expected to be
    the fastest, and of `also`.
    """
    forecast = beliefs.forecast
    quantiles = np.stack([forecast.quantile(level) for level in LEVELS])
    reach = forecast.probability_of_reaching()
    wanted = {run.configuration for run in state.runs.values()}
    baseline = state.job.baseline_configuration()
    wanted |= {c for c in (baseline, also) if c is not None}
    order = np.argsort(quantiles[1])[:_MOST_STORED]
    wanted |= {forecast.configurations[i] for i in order}
    records = [
        prediction_record(state, study, forecast, i, quantiles[:, i], float(reach[i]), now)
        for i, configuration in enumerate(forecast.configurations)
        if configuration in wanted
    ]
    ledger.add_predictions(records)
    fits = {"seconds": beliefs.predictor.seconds, "samples": beliefs.predictor.samples}
    for name, fit in fits.items():
        ledger.add_fit(
            FitRecord(
                study_id=study.study_id,
                fingerprint=study.fingerprint,
                model=name,
                made_at=now,
                num_slices=len(state.slices),
                parameters=fit.parameters(),
                summary=fit.findings(),
            )
        )


def prediction_record(
    state: SearchState,
    study: StudyRecord,
    forecast: Forecast,
    index: int,
    quantiles: Array,
    reach: float,
    now: float,
) -> PredictionRecord:
    """One configuration's prediction as it is stored."""
    configuration = forecast.configurations[index]
    run = run_of(state, configuration)
    price = state.cluster.dollars_per_second(configuration)
    values = {level: float(value) for level, value in zip(LEVELS, quantiles, strict=True)}
    return PredictionRecord(
        study_id=study.study_id,
        configuration=configuration,
        made_at=now,
        quantiles=values,
        dollars={level: value * price if price else 0.0 for level, value in values.items()},
        probability_of_reaching=reach if math.isfinite(reach) else 0.0,
        num_slices=len(state.slices),
        seconds_known=run.measurement.training_seconds if run else 0.0,
    )
