"""Converts communication strategies to numbers for the models."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from search_spaces import STRATEGIES, Configuration, StrategyTraits, traits_of
from tuner.analytic.laws import Array

#: Correlation between the residuals (deviations from the law) of two steps, or of two runs, that differ only
#: in strategy. It is high, since they have the machine and the workload in common.
STRATEGY_CORRELATION = 0.6
#: Length scale of each column of `strategy_columns` that gives this correlation; two strategies differ in two
#: columns.
STRATEGY_LENGTH = 1.0 / math.sqrt(-math.log(STRATEGY_CORRELATION))
NUM_STRATEGIES = len(STRATEGIES)

_NAMES = tuple(STRATEGIES)
_EXCHANGES = [(t.step_time_law, t.draws_itself, t.vectors) for t in STRATEGIES.values()]
#: For each strategy, the index of the first strategy with the same step time.
_KINDS = np.array([_EXCHANGES.index(exchange) for exchange in _EXCHANGES])


@dataclass(frozen=True, kw_only=True)
class Setup:
    """The number of ranks of a configuration, and how these ranks train together.

    Args:
        strategy: Name of the strategy.
        num_ranks: p, number of ranks.
        tau: Steps between two exchanges of gradients or parameters between ranks.
        configuration: The configuration, which has the values of the strategy's further parameters (knobs).
            Setups that differ only in the configuration compare as equal, since step times do not depend on
            those knobs.
    """

    strategy: str
    num_ranks: int
    tau: int
    configuration: Configuration = field(compare=False)

    @property
    def traits(self) -> StrategyTraits:
        """Properties of the communication strategy, such as whether ranks wait for each other."""
        return traits_of(self.strategy)


@lru_cache(maxsize=8192)
def setup_of(configuration: Configuration, num_ranks: int) -> Setup:
    """Returns how a number of ranks train a configuration together.

    A single rank trains by plain SGD under every strategy without an outer optimizer step. The models treat
    this as all-reduce, so one run informs the predictions of all strategies.

    Args:
        configuration: The configuration, with its strategy and the values of the strategy's parameters.
        num_ranks: Number of ranks that train it.
    """
    traits = traits_of(configuration.strategy)
    if num_ranks == 1 and not traits.has_outer_step:
        return Setup(strategy="all_reduce", num_ranks=1, tau=1, configuration=configuration)
    tau = traits.tau_of(configuration)
    return Setup(strategy=traits.name, num_ranks=num_ranks, tau=tau, configuration=configuration)


def strategy_columns(setups: Sequence[Setup]) -> Array:
    """Encodes strategies as one-hot rows, `(num_setups, NUM_STRATEGIES)`."""
    own = np.array([_NAMES.index(setup.strategy) for setup in setups], dtype=np.intp)
    return np.eye(NUM_STRATEGIES)[own]


def exchanging_alike(columns: Array) -> list[tuple[StrategyTraits, npt.NDArray[np.intp]]]:
    """Groups configurations by the formula of step time that their strategy has.

    Args:
        columns: The strategy of each configuration as a row of `strategy_columns`, `(num, NUM_STRATEGIES)`.

    Returns:
        For each group, the traits of one of its strategies and the indices of its rows.
    """
    kinds = _KINDS[columns.argmax(axis=1)]
    return [(traits_of(_NAMES[i]), np.flatnonzero(kinds == i)) for i in np.unique(kinds)]


def exchanges_asynchronously(strategies: Sequence[str]) -> bool:
    """Whether any strategy exchanges model parameters, so that the models need additional parameters."""
    return any(traits_of(name).exchanged == "parameters" for name in strategies)
