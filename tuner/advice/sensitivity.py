"""Finds out how wrong the description of an emulated cluster may be without changing the recommendation.

The description is the section [cluster.machine] of the job file. The analysis finds the factor by which a
property of the cluster, such as its bandwidth, must differ from the description before another strategy or
another number of nodes is better.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.analytic.laws import Array
from tuner.analytic.step_time_model import SecondsModel
from tuner.domain.format import format_dollars, format_seconds
from tuner.search.beliefs import Beliefs
from tuner.search.state import SearchState

#: Factors by which a property of the cluster is multiplied or divided, smallest first.
_FACTORS = (1.5, 2.0, 3.0, 5.0, 10.0)
#: Another configuration is better if its cost is at most this share of the cost of the recommended one.
_AHEAD = 0.95


@dataclass(frozen=True, kw_only=True)
class _Quantity:
    """A property of the described cluster, such as the bandwidth, whose real value may differ.

    Args:
        words: Name of the property in sentences.
        unknowns: Names of the parameters of the step-time model that the analysis shifts to change the
            property.
        more: Adjective for a larger value of the property, such as `higher`.
        less: Adjective for a smaller value of the property, such as `lower`.
    """

    words: str
    unknowns: tuple[str, ...]
    more: str
    less: str


_QUANTITIES = (
    _Quantity(words="bandwidth", unknowns=("log bandwidth (bytes/s)",), more="higher", less="lower"),
    _Quantity(words="latency", unknowns=("log hop latency (seconds)",), more="higher", less="lower"),
    _Quantity(words="jitter", unknowns=("log jitter",), more="stronger", less="weaker"),
    _Quantity(
        words="compute time of a step",
        unknowns=("log fixed compute seconds", "log compute (seconds per sample)"),
        more="longer",
        less="shorter",
    ),
)


def sensitivity(state: SearchState, beliefs: Beliefs, choice: Configuration) -> tuple[str, ...]:
    """Finds changes of the cluster that would change the best strategy or the best number of nodes.

    Bandwidth, latency, jitter and compute time are changed one at a time, up to ten times larger or smaller.
    The number of samples to target stays the same.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration.

    Returns:
        One sentence for each change, and one sentence that lists the properties without such a change. Empty
            if the job trains on a real cluster.
    """
    if state.terms.is_training or choice not in beliefs.configurations:
        return ()
    expected = beliefs.expected
    place = beliefs.configurations.index(choice)
    by_price = state.job.goal.minimize == "dollars"
    prices = np.array(
        [state.cluster.dollars_per_second(c) if by_price else 1.0 for c in beliefs.configurations]
    )
    found, steady = [], []
    for quantity in _QUANTITIES:
        turns = [
            _turn(quantity, sign, expected, beliefs, place, prices, by_price=by_price) for sign in (-1.0, 1.0)
        ]
        stated = [turn for turn in turns if turn is not None]
        found += stated
        if not stated:
            steady.append(quantity.words)
    if steady:
        names = steady[0] if len(steady) == 1 else f"{', '.join(steady[:-1])} and {steady[-1]}"
        found.append(
            f"{names[0].upper()}{names[1:]}, up to {_FACTORS[-1]:g} times larger or smaller, would change "
            "neither the best strategy nor the best number of nodes."
        )
    return tuple(found)


def _turn(
    quantity: _Quantity,
    sign: float,
    expected: Array,
    beliefs: Beliefs,
    place: int,
    prices: Array,
    *,
    by_price: bool,
) -> str | None:
    """Finds the smallest change of one property at which another strategy or number of nodes is better.

    Args:
        quantity: The property of the cluster.
        sign: 1 to increase the property, -1 to decrease it.
        expected: Expected cost of every candidate, `(num,)`.
        beliefs: Forecasts of all candidates.
        place: Index of the recommended configuration.
        prices: What a second of every candidate counts, `(num,)`: its price, or 1 if the goal is the time.
        by_price: Whether `prices` are dollars.

    Returns:
        A sentence on this change; None if no change up to ten times makes another configuration better.
    """
    choice = beliefs.configurations[place]
    # Skip candidates whose expected cost is smaller than that of the recommendation even without a change:
    # they were rejected for reasons that do not depend on the cluster.
    behind = expected >= expected[place]
    shown = format_dollars if by_price else format_seconds
    for factor in _FACTORS:
        log_ratio = _log_ratio(quantity, sign * math.log(factor), beliefs)
        cost = expected * np.exp(log_ratio)
        medians = beliefs.forecast.quantile(0.5) * np.exp(log_ratio) * prices
        # Compare the medians too, because a few very large posterior samples may dominate the expected cost.
        ahead = behind & np.isfinite(cost) & (medians < medians[place])
        best = int(np.argmin(np.where(ahead, cost, np.inf)))
        other = beliefs.configurations[best]
        same = (other.strategy, other.nodes) == (choice.strategy, choice.nodes)
        if same or not ahead[best] or cost[best] > _AHEAD * cost[place]:
            continue
        how = f"{factor:g} times {quantity.more if sign > 0 else quantity.less}"
        nodes = "1 node" if other.nodes == 1 else f"{other.nodes} nodes"
        return (
            f"With {quantity.words} {how}, {other.strategy} on {nodes} (batch {other.batch_size:,}) would be "
            f"{'cheaper' if by_price else 'faster'}: {shown(float(medians[best]))} against "
            f"{shown(float(medians[place]))}."
        )
    return None


def _log_ratio(quantity: _Quantity, log_factor: float, beliefs: Beliefs) -> Array:
    """Predicts how the seconds per sample change if one property of the cluster changes, `(num,)`.

    The result is the change of their logarithm, for each candidate.

    Args:
        quantity: The property.
        log_factor: Logarithm of the factor that multiplies the property.
        beliefs: Forecasts of all candidates, with the fitted step-time model.
    """
    model = beliefs.predictor.seconds
    assert isinstance(model, SecondsModel), "for a described cluster, the cost model predicts step time"
    before, _ = model.log_seconds_per_sample(beliefs.configurations)
    after, _ = model.shifted(quantity.unknowns, log_factor).log_seconds_per_sample(beliefs.configurations)
    return np.asarray(after - before, dtype=float)
