"""Chooses the best configuration under other conditions than those of the job.

The choice under the job's own conditions is the recommendation. Where the recommendation is not the candidate
with the smallest expected cost (for example, because it was measured), the other candidates have a handicap,
so that only changes of the conditions can change the choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.advice.alternatives import alternative
from tuner.analytic.laws import NINETY_PERCENT, Array
from tuner.domain.analysis import WhatIf
from tuner.domain.estimate import Estimate
from tuner.domain.format import format_chance
from tuner.search.beliefs import Beliefs, log_longest, prices
from tuner.search.improvement import keeps_within, risks_within
from tuner.search.state import SearchState

Refit = Callable[[SearchState, Sequence[Configuration]], Beliefs]
"""Function that fits all models to a state, and forecasts some configurations."""

#: Maximum number of candidates that are forecast by models that are fitted again.
MOST_REFITTED = 250
#: A smaller chance of reaching the target is stated.
_SURE = 0.75
#: Another configuration is better if its cost is at most this share of the cost of the recommended one.
AHEAD = 0.95


@dataclass(frozen=True, kw_only=True)
class Base:
    """The recommendation and the forecasts under the job's own conditions.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.
        choice: The recommended configuration, one of the candidates.
    """

    state: SearchState
    beliefs: Beliefs
    choice: Configuration

    @property
    def index(self) -> int:
        """Index of the recommended configuration in the candidates."""
        return self.beliefs.configurations.index(self.choice)

    @cached_property
    def handicaps(self) -> dict[Configuration, float]:
        """Factor of the cost of each candidate, at least 1 (see the module docstring)."""
        expected = self.beliefs.expected
        own = float(expected[self.index])
        return {
            c: max(own / cost, 1.0) if 0.0 < cost < math.inf and math.isfinite(own) else 1.0
            for c, cost in zip(self.beliefs.configurations, expected.tolist(), strict=True)
        }

    def shortlist(self, most: int, num_nodes: int | None = None) -> list[Configuration]:
        """Returns the candidates with the smallest expected cost, and the recommended configuration.

        Args:
            most: Maximum number of candidates.
            num_nodes: If given, only candidates with this number of nodes.
        """
        configurations, expected = self.beliefs.configurations, self.beliefs.expected
        ranked = [
            configurations[i]
            for i in np.argsort(expected, kind="stable")
            if num_nodes is None or configurations[i].nodes == num_nodes
        ]
        return list(dict.fromkeys([*([self.choice] if num_nodes is None else []), *ranked[:most]]))

    @cached_property
    def median_seconds(self) -> float:
        """Predicted median of the seconds to target of the recommended configuration."""
        return alternative(self.state, self.beliefs, self.choice).seconds.median


@dataclass(frozen=True, kw_only=True)
class Condition:
    """Another condition of the job.

    Args:
        topic: See `WhatIf`.
        change: See `WhatIf`.
        state: State of the search under the condition.
        beliefs: Forecasts under the condition.
        allowed: Whether each candidate is possible, `(num,)`; None if all are.
        log_sd: Standard deviation of the logarithm of the change of seconds, for candidates whose time to
            target is a measured one that was converted, `(num,)`; None if nothing was converted.
    """

    topic: str
    change: str
    state: SearchState
    beliefs: Beliefs
    allowed: npt.NDArray[np.bool_] | None = None
    log_sd: Array | None = None

    def keeps(self) -> Array:
        """Probability that each candidate reaches the target within the limits of the goal, `(num,)`."""
        prospects = self.beliefs.prospects
        return keeps_within(prospects, log_longest(self.state, prospects))

    def best(self, base: Base) -> int | None:
        """Returns the index of the best candidate; None if no candidate is possible.

        It is the recommended configuration unless another candidate is clearly better, both in its expected
        cost and in its median. If the recommended configuration is impossible, there is nothing that it was
        preferred to, and no candidate has a handicap.
        """
        prospects, configurations = self.beliefs.prospects, self.beliefs.configurations
        price = prices(self.state, configurations)
        allowed = np.ones(len(configurations), dtype=np.bool_) if self.allowed is None else self.allowed
        own = configurations.index(base.choice) if base.choice in configurations else None
        factor = np.where(allowed, 1.0, np.inf)
        if own is not None and allowed[own]:
            factor *= np.array([base.handicaps.get(c, 1.0) for c in configurations])
        risk = risks_within(prospects, price * factor, self.keeps())
        best = int(np.argmin(risk))
        if not np.isfinite(risk[best]):
            return None
        if own is None or not np.isfinite(risk[own]):
            return best
        middle = np.median(prospects.log_seconds, axis=1) + np.log(price)
        ahead = (risk < risk[own] + math.log(AHEAD)) & (middle < middle[own])
        return int(np.argmin(np.where(ahead, risk, np.inf))) if ahead.any() else own

    def row(self, base: Base, index: int, note: str = "", *, shown_in: SearchState | None = None) -> WhatIf:
        """Describes the best candidate under the condition.

        Args:
            base: The recommendation.
            index: Index of the best candidate.
            note: What decides; if empty, it is written from both configurations.
            shown_in: State with the prices to show; by default, that of the condition.
        """
        state = shown_in or self.state
        configuration = self.beliefs.configurations[index]
        found = alternative(state, self.beliefs, configuration)
        seconds = found.seconds
        if self.log_sd is not None and found.measured_seconds is not None:
            seconds = widened(seconds, float(self.log_sd[index]))
        is_same = configuration == base.choice
        more = [note] if note else []
        if not is_same and not found.is_observed:
            more.append("the best one was not trained")
        if not is_same and found.probability_of_reaching < _SURE:
            more.append(f"its chance of reaching the target {format_chance(found.probability_of_reaching)}")
        price = state.cluster.dollars_per_second(configuration)
        return WhatIf(
            topic=self.topic,
            change=self.change,
            configuration=configuration,
            seconds=seconds,
            dollars=seconds.times(price) if state.cluster.has_prices else None,
            node_hours=node_hours(state, configuration, seconds),
            probability_of_reaching=found.probability_of_reaching,
            is_same=is_same,
            note="; ".join(more),
        )


def node_hours(state: SearchState, configuration: Configuration, seconds: Estimate) -> Estimate:
    """Returns the node hours of a training, including extra nodes such as that of a parameter server."""
    return seconds.times((configuration.nodes + state.cluster.extra_nodes) / 3600.0)


def widened(seconds: Estimate, log_sd: float) -> Estimate:
    """Returns an estimate with an interval that contains one more independent error.

    Args:
        seconds: The estimate.
        log_sd: Standard deviation of the logarithm of the error.
    """
    if not 0.0 < seconds.lower <= seconds.median < math.inf:
        return seconds
    below = math.hypot(math.log(seconds.median / seconds.lower), NINETY_PERCENT * log_sd)
    above = math.inf
    if math.isfinite(seconds.upper):
        above = math.hypot(math.log(seconds.upper / seconds.median), NINETY_PERCENT * log_sd)
    upper = seconds.median * math.exp(above) if math.isfinite(above) else math.inf
    return replace(seconds, lower=seconds.median * math.exp(-below), upper=upper)


def first_change(
    base: Base, made: Callable[[float], Condition], factors: tuple[float, ...]
) -> tuple[Condition, int, float]:
    """Finds the smallest change that changes the best configuration; the largest one if none does.

    Args:
        base: The recommendation.
        made: Function that returns the condition for a factor.
        factors: The factors to try, smallest first.

    Returns:
        The condition, the index of the best candidate under it, and the factor.
    """
    largest = made(factors[-1])
    best = largest.best(base)
    if best is None or best == base.index:
        return largest, base.index, factors[-1]
    for factor in factors[:-1]:
        condition = made(factor)
        found = condition.best(base)
        if found is not None and found != base.index:
            return condition, found, factor
    return largest, best, factors[-1]


def up_to(row: WhatIf, factor: float) -> WhatIf:
    """States that no factor up to the given one changes the best configuration."""
    return replace(row, change=row.change.replace(f"{factor:g} times", f"up to {factor:g} times"))
