"""Encodes strategies for the models: number of ranks, tau, and one column per strategy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search_spaces import STRATEGIES, Configuration, StrategyTraits, traits_of
from tuner.analytic.laws import Array

#: Correlation between the residuals of two strategies, all else equal: they share machine and workload.
STRATEGY_CORRELATION = 0.6
#: Length scale of a column of `strategy_columns`, for this correlation: two strategies differ in two columns.
STRATEGY_LENGTH = 1.0 / math.sqrt(-math.log(STRATEGY_CORRELATION))
NUM_STRATEGIES = len(STRATEGIES)

_NAMES = tuple(STRATEGIES)
_EXCHANGES = [(t.step_time_law, t.draws_itself, t.vectors) for t in STRATEGIES.values()]
#: For each strategy, the index of the first one whose steps take as long.
_KINDS = np.array([_EXCHANGES.index(exchange) for exchange in _EXCHANGES])


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the ranks of a configuration train together.

    Args:
        strategy: The name of the strategy.
        num_ranks: p.
        tau: Steps between two exchanges.
        configuration: The configuration, for further knobs.
    """

    strategy: str
    num_ranks: int
    tau: int
    configuration: Configuration

    @property
    def traits(self) -> StrategyTraits:
        """The traits of the strategy."""
        return traits_of(self.strategy)


@lru_cache(maxsize=8192)
def setup_of(configuration: Configuration, num_ranks: int) -> Setup:
    """How a configuration trains on `num_ranks` ranks.

    A single rank trains by plain SGD whatever the strategy, except with an outer step. It counts as
    all-reduce, so that one run informs the predictions of all strategies.
    """
    traits = traits_of(configuration.strategy)
    if num_ranks == 1 and not traits.has_outer_step:
        return Setup(strategy="all_reduce", num_ranks=1, tau=1, configuration=configuration)
    tau = traits.tau_of(configuration)
    return Setup(strategy=traits.name, num_ranks=num_ranks, tau=tau, configuration=configuration)


def strategy_columns(setups: Sequence[Setup]) -> Array:
    """One-hot encoding of the strategies of setups, `(num_setups, NUM_STRATEGIES)`."""
    own = np.array([_NAMES.index(setup.strategy) for setup in setups], dtype=np.intp)
    return np.eye(NUM_STRATEGIES)[own]


def exchanging_alike(columns: Array) -> list[tuple[StrategyTraits, npt.NDArray[np.intp]]]:
    """Groups the rows of `strategy_columns` by law of step time, each with the traits of one strategy."""
    kinds = _KINDS[columns.argmax(axis=1)]
    return [(traits_of(_NAMES[i]), np.flatnonzero(kinds == i)) for i in np.unique(kinds)]


def exchanges_asynchronously(strategies: Sequence[str]) -> bool:
    """Whether some strategy exchanges parameters, so that the additional unknowns matter."""
    return any(traits_of(name).exchanged == "parameters" for name in strategies)
