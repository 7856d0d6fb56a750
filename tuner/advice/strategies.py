"""Compares communication strategies, each with its best configuration, and explains the recommended one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from search_spaces import Configuration, traits_of
from tuner.advice.alternatives import alternative
from tuner.advice.strategy_words import contrast
from tuner.analytic.laws import NINETY_PERCENT
from tuner.domain.cluster import Cluster
from tuner.domain.recommendation import Alternative, Estimate, StrategyOutlook
from tuner.search.beliefs import Beliefs
from tuner.search.prediction_log import LEVELS
from tuner.search.state import SearchState


def strategy_outlooks(
    state: SearchState,
    beliefs: Beliefs,
    choice: Configuration,
) -> tuple[StrategyOutlook, ...]:
    """Predicts time and samples to target of each communication strategy with its best configuration.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration.

    Returns:
        The predictions for the recommended strategy, then those for the other strategies, sorted by time to
        target. Empty if the candidates have only one strategy.
    """
    best = _best_by_strategy(beliefs, choice)
    if len(best) < 2:
        return ()
    first, *others = (_outlook(state, beliefs, alternative(state, beliefs, c)) for c in best)
    others.sort(key=lambda outlook: outlook.seconds.median)
    return _worded([first, *others], state.cluster)


def _best_by_strategy(beliefs: Beliefs, choice: Configuration) -> list[Configuration]:
    """Returns the recommended configuration, then the best configuration of every other strategy.

    The best configuration of a strategy has the smallest expected cost.
    """
    expected = beliefs.expected
    medians = beliefs.forecast.quantile(0.5)
    best: dict[str, int] = {}
    for i, configuration in enumerate(beliefs.configurations):
        name = configuration.strategy
        if name not in best or (expected[i], medians[i]) < (expected[best[name]], medians[best[name]]):
            best[name] = i
    others = [beliefs.configurations[i] for name, i in best.items() if name != choice.strategy]
    return [choice, *others]


def _outlook(state: SearchState, beliefs: Beliefs, best: Alternative) -> StrategyOutlook:
    configuration = best.configuration
    index = beliefs.configurations.index(configuration)
    ordered = np.sort(beliefs.forecast.samples[:, index])
    samples = [float(ordered[min(int(level * len(ordered)), len(ordered) - 1)]) for level in LEVELS]
    forecast = beliefs.forecast
    batch = float(forecast.seconds_per_sample[index]) * configuration.batch_size
    sd = math.hypot(float(forecast.log_seconds_sd[index]), beliefs.predictor.seconds.between_moments_sd)
    spread = math.exp(NINETY_PERCENT * sd)
    ranks = state.cluster.num_ranks(configuration.nodes)
    return StrategyOutlook(
        configuration=configuration,
        batch_seconds=Estimate(lower=batch / spread, median=batch, upper=batch * spread),
        samples=Estimate(lower=samples[0], median=samples[1], upper=samples[2]),
        seconds=best.seconds,
        share_observed=best.share_observed,
        waits_for_slowest=traits_of(configuration.strategy).barrier and ranks > 1,
    )


def _worded(outlooks: Sequence[StrategyOutlook], cluster: Cluster) -> tuple[StrategyOutlook, ...]:
    """Adds to the predictions of each strategy a sentence that compares it with another strategy.

    The recommended strategy is compared with all-reduce, which users know best. If all-reduce is recommended,
    or is not in the space, the second best strategy is used instead. All other strategies are compared with
    the recommended one.

    Args:
        outlooks: The predictions for each strategy, first those for the recommended strategy; at least two.
        cluster: The cluster.
    """
    first = outlooks[0]
    known = [o for o in outlooks[1:] if o.configuration.strategy == "all_reduce"]
    reference = known[0] if known else outlooks[1]
    return (
        replace(first, comparison=contrast(first, reference, cluster, chosen=True)),
        *(replace(other, comparison=contrast(other, first, cluster, chosen=False)) for other in outlooks[1:]),
    )
