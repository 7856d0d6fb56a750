"""What is known of a strategy without running it; free of torch, for laws and the command line."""

from __future__ import annotations

import difflib
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Literal

from search_spaces.choices import Choice
from search_spaces.configuration import Configuration


@dataclass(frozen=True, kw_only=True)
class StrategyTraits:
    """How a strategy keeps the replicas in step, as far as models and search need to know.

    Args:
        name: The value of the `strategy` axis.
        title: The words a report uses.
        exchanged: What crosses the network: `gradients` or `parameters`.
        partners: With whom: `all` ranks, a `server`, or one `peer`.
        barrier: Whether all ranks wait for the slowest at an exchange.
        counted_batch: Which batch the statistics of training depend on: the `global` one or the `rank`'s.
        statistics_depend_on_nodes: Whether curves by samples change with the number of ranks at
            one global batch; where they do not, one curve prices every number of nodes.
        scored: Which parameters are scored: the `common` ones, the `center`, or the `average`.
        knobs: Further axes that are active with this strategy, and what they may be.
    """

    name: str
    title: str
    exchanged: Literal["gradients", "parameters"]
    partners: Literal["all", "server", "peer"]
    barrier: bool
    counted_batch: Literal["global", "rank"]
    statistics_depend_on_nodes: bool
    scored: Literal["common", "center", "average"]
    knobs: dict[str, Choice] = field(default_factory=dict)

    def statistics_of(self, configuration: Configuration) -> Configuration:
        """The axes on which samples to target depend; what remains only changes seconds a sample."""
        return _without(configuration, not self.statistics_depend_on_nodes)


@lru_cache(maxsize=8192)
def _without(configuration: Configuration, nodes: bool) -> Configuration:
    return configuration.without("machine", *(["nodes"] if nodes else []))


STRATEGIES: dict[str, StrategyTraits] = {
    traits.name: traits
    for traits in (
        StrategyTraits(
            name="all_reduce",
            title="synchronous all-reduce",
            exchanged="gradients",
            partners="all",
            barrier=True,
            counted_batch="global",
            statistics_depend_on_nodes=False,
            scored="common",
        ),
    )
}


def traits_of(name: str) -> StrategyTraits:
    """The traits of a strategy.

    Raises:
        KeyError: No strategy has this name; the message lists those that exist and the nearest.
    """
    try:
        return STRATEGIES[name]
    except KeyError:
        near = difflib.get_close_matches(name, STRATEGIES, n=1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise KeyError(
            f"unknown strategy {name!r}; known are {', '.join(sorted(STRATEGIES))}{hint}"
        ) from None
