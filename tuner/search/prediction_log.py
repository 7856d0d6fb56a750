"""Store the predictions and the fitted models of a search in the ledger (the database of the study)."""

from __future__ import annotations

import numpy as np

from search_spaces import Configuration
from tuner.domain.ledger import FitRecord, PredictionRecord
from tuner.search.beliefs import Beliefs
from tuner.search.context import SearchContext
from tuner.search.state import SearchState, run_of

#: Quantile levels of the stored predictions of time to target: the median and the central 90% interval.
LEVELS = (0.05, 0.5, 0.95)
#: Number of configurations whose predictions are stored, besides those that are stored in any case. They are
#: those with the smallest predicted median time.
_MOST_STORED = 12


def remember_beliefs(
    context: SearchContext, state: SearchState, beliefs: Beliefs, *, also: Configuration | None = None
) -> None:
    """Stores predictions of the time to target, and the parameters of the models that made them.

    Predictions are stored for the configurations of all started runs, for the user's present settings, for
    the configurations with the smallest predicted median time, and for `also`.

    Args:
        context: Study, ledger and clock.
        state: State of the search.
        beliefs: The forecasts and the fitted models.
        also: One more configuration whose prediction is stored; None for no such configuration.
    """
    forecast, study, now = beliefs.forecast, context.study, context.clock()
    quantiles = np.stack([forecast.quantile(level) for level in LEVELS])
    reach = np.nan_to_num(forecast.probability_of_reaching(), nan=0.0, posinf=0.0, neginf=0.0)
    wanted = {run.configuration for run in state.runs.values()}
    wanted |= {c for c in (state.job.baseline_configuration(), also) if c is not None}
    wanted |= {forecast.configurations[i] for i in np.argsort(quantiles[1])[:_MOST_STORED]}
    records = []
    for i, configuration in enumerate(forecast.configurations):
        if configuration not in wanted:
            continue
        run = run_of(state, configuration)
        price = state.cluster.dollars_per_second(configuration)
        values = dict(zip(LEVELS, quantiles[:, i].tolist(), strict=True))
        records.append(
            PredictionRecord(
                study_id=study.study_id,
                configuration=configuration,
                created_at=now,
                quantiles=values,
                dollars={level: value * price if price else 0.0 for level, value in values.items()},
                probability_of_reaching=float(reach[i]),
                num_slices=len(state.slices),
                seconds_observed=run.measurement.training_seconds if run else 0.0,
            )
        )
    context.ledger.add_predictions(records)
    fits = {"seconds": beliefs.predictor.seconds, "samples": beliefs.predictor.samples}
    for name, fit in fits.items():
        context.ledger.add_fit(
            FitRecord(
                study_id=study.study_id,
                fingerprint=study.fingerprint,
                model=name,
                created_at=now,
                num_slices=len(state.slices),
                parameters=fit.parameters(),
                summary=fit.findings(),
            )
        )
