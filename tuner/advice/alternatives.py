"""Predicts time and cost of one configuration, as reports show them."""

from __future__ import annotations

import math

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import NINETY_PERCENT
from tuner.analytic.predictor import Forecast
from tuner.analytic.samples_model import SEED_SD
from tuner.domain.cluster import charge
from tuner.domain.recommendation import Alternative, Estimate
from tuner.search.beliefs import Beliefs
from tuner.search.prediction_log import LEVELS
from tuner.search.state import SearchState, run_of


def alternative(state: SearchState, beliefs: Beliefs, configuration: Configuration) -> Alternative:
    """Returns the predicted time and cost of a configuration, and how far its training was measured.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        configuration: One of the candidates.
    """
    index = beliefs.configurations.index(configuration)
    run = run_of(state, configuration)
    own = run if run is not None and run.configuration == configuration else None
    if own is not None and own.seconds_to_target is not None:
        seconds = _repeat(own.seconds_to_target, beliefs)
        probability = 1.0
    else:
        seconds = seconds_estimate(beliefs.forecast, index)
        chance = 1.0 - float(beliefs.forecast.never[:, index].mean())
        probability = min(max(chance, LEVELS[0]), LEVELS[-1])
    known = own.seen_seconds if own else 0.0
    return Alternative(
        configuration=configuration,
        seconds=seconds,
        dollars=_dollars(state, configuration, seconds),
        probability_of_reaching=probability,
        measured_seconds=own.seconds_to_target if own else None,
        share_observed=min(known / seconds.median, 1.0) if seconds.median > 0 else 0.0,
        samples_observed=own.seen_samples if own else 0,
        seconds_observed=known,
        emulated=state.cluster.emulates(configuration),
    )


def seconds_estimate(forecast: Forecast, index: int) -> Estimate:
    """Returns the quantiles of the training seconds to target of one candidate, as `Forecast.quantile` does.

    Args:
        forecast: Posterior samples of the candidates.
        index: Index of the candidate.
    """
    ordered = np.sort(forecast.total[:, index])
    num_finite = int(np.isfinite(ordered).sum())
    lower, median, upper = (float(ordered[int(level * num_finite)]) for level in LEVELS)
    return Estimate(lower=lower, median=median, upper=upper)


def repeat_sd(beliefs: Beliefs) -> float:
    """Returns the standard deviation of the logarithm of the time to target between equal trainings."""
    return math.hypot(SEED_SD, beliefs.predictor.seconds.between_moments_sd)


def _repeat(seconds: float, beliefs: Beliefs) -> Estimate:
    """Predicts the time to target of a measured run if it is repeated with another order of the data.

    Args:
        seconds: Measured training seconds to target.
        beliefs: The forecasts, which contain the variation of step times over time.
    """
    spread = NINETY_PERCENT * repeat_sd(beliefs)
    return Estimate(lower=seconds * math.exp(-spread), median=seconds, upper=seconds * math.exp(spread))


def _dollars(state: SearchState, configuration: Configuration, seconds: Estimate) -> Estimate | None:
    if not state.cluster.has_prices:
        return None
    price = charge(1.0, configuration, state.cluster).dollars
    return Estimate(lower=seconds.lower * price, median=seconds.median * price, upper=seconds.upper * price)
