"""Encodes how a configuration's ranks train for the models: strategy, ranks, asynchronous steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search_spaces import STRATEGIES, Configuration, StrategyTraits, traits_of
from tuner.analytic.laws import Array

#: Correlation between two strategies' residuals, all else equal: they share machine and workload, and each
#: has its own code on top.
STRATEGY_CORRELATION = 0.6
#: Length scale of each `strategy_columns` that gives this correlation: two strategies differ in two of them.
STRATEGY_LENGTH = 1.0 / math.sqrt(-math.log(STRATEGY_CORRELATION))
NUM_STRATEGIES = len(STRATEGIES)

_NAMES = tuple(STRATEGIES)
_EXCHANGES = [(t.partners, t.exchanged, t.draws_itself, t.vectors) for t in STRATEGIES.values()]
#: For each strategy the place of the first one that exchanges alike.
_KINDS = np.array([_EXCHANGES.index(exchange) for exchange in _EXCHANGES])


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How ranks train together.

    Args:
        strategy: Its name.
        num_ranks: p.
        tau: Steps between two exchanges.
    """

    strategy: str
    num_ranks: int
    tau: int

    @property
    def traits(self) -> StrategyTraits:
        """What is known of the strategy."""
        return traits_of(self.strategy)


@lru_cache(maxsize=8192)
def setup_of(configuration: Configuration, num_ranks: int) -> Setup:
    """How a configuration trains on so many ranks.

    One rank has nobody to exchange with: except for an outer step it is plain SGD whatever the strategy, and
    stands for what all-reduce is on one rank, so that a run of one informs all.
    """
    traits = traits_of(configuration.strategy)
    if num_ranks == 1 and not traits.has_outer_step:
        return Setup(strategy="all_reduce", num_ranks=1, tau=1)
    return Setup(strategy=traits.name, num_ranks=num_ranks, tau=traits.tau_of(configuration))


def strategy_columns(setups: Sequence[Setup]) -> Array:
    """One column a strategy, 1 in a setup's own, `(num_setups, NUM_STRATEGIES)`."""
    own = np.array([_NAMES.index(setup.strategy) for setup in setups], dtype=np.intp)
    return np.eye(NUM_STRATEGIES)[own]


def exchanging_alike(columns: Array) -> list[tuple[StrategyTraits, npt.NDArray[np.intp]]]:
    """The rows of `strategy_columns` by how they exchange, each time with the traits of one such strategy.

    What crosses the network, with whom and how much, is all that seconds depend on.
    """
    kinds = _KINDS[columns.argmax(axis=1)]
    return [(traits_of(_NAMES[i]), np.flatnonzero(kinds == i)) for i in np.unique(kinds)]


def exchanges_asynchronously(strategies: Sequence[str]) -> bool:
    """Whether any of some strategies does more than all-reduce gradients, so that its unknowns matter."""
    return any(traits_of(name).exchanged == "parameters" for name in strategies)
