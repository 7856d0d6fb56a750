"""Warns if the recommended training is very probably better on another number of nodes."""

from __future__ import annotations

import math

import numpy as np

from search_spaces import Configuration
from tuner.domain.format import format_configuration, format_ratio
from tuner.search.beliefs import Beliefs
from tuner.search.runs import run_key
from tuner.search.state import SearchState, run_of

#: Smallest probability of being better, and largest ratio of the costs, for a warning.
_SURE, _AHEAD = 0.9, 0.95


def better_on_other_nodes(state: SearchState, beliefs: Beliefs, choice: Configuration) -> tuple[str, ...]:
    """Returns a warning if the same training is very probably better on another number of nodes.

    A run that reached the target is preferred to predictions. But the run also measured the learning curve of
    the same configuration on other nodes, whose time and price depend only on the speed of their steps.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration, one of the candidates.
    """
    run = run_of(state, choice)
    if state.job.goal.trainings == 1 or run is None or not run.arrived:
        return ()
    candidates, key = beliefs.configurations, run_key(state.job, choice)
    log_cost = beliefs.forecast.log_speed + np.log(beliefs.price)
    own = candidates.index(choice)
    found = []
    for index, candidate in enumerate(candidates):
        if index == own or not math.isfinite(beliefs.expected[index]) or run_key(state.job, candidate) != key:
            continue
        logs = log_cost[:, index] - log_cost[:, own]
        ratio = math.exp(float(np.median(logs)))
        if ratio < _AHEAD and float((logs < 0.0).mean()) >= _SURE:
            found.append((ratio, candidate))
    if not found:
        return ()
    ratio, candidate = min(found, key=lambda one: one[0])
    word, quantity = ("cheaper", "price") if state.job.goal.minimize == "dollars" else ("sooner", "time")
    return (
        f"{format_configuration(candidate)} is very probably {word}: it has the same learning curve, and "
        f"{format_ratio(ratio)} the {quantity} by the predicted time of its steps. No run of it reached the "
        "target yet; `paceline train` measures it.",
    )
