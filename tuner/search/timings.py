"""Which configurations share a step time: same nodes, batch, strategy and steps between exchanges."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.analytic.strategy_encoding import setup_of
from tuner.domain.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class TimingKey:
    """All that seconds a step depend on.

    Args:
        nodes: Number of nodes.
        batch_size: Global batch size.
        strategy: The strategy; on one rank, where most are the same, the one that stands for them.
        tau: Steps between two exchanges.
    """

    nodes: int
    batch_size: int
    strategy: str
    tau: int


def timing_key(configuration: Configuration, cluster: Cluster) -> TimingKey:
    """The configurations that a timing of this one holds for."""
    setup = setup_of(configuration, cluster.num_ranks(configuration.nodes))
    return TimingKey(
        nodes=configuration.nodes,
        batch_size=configuration.batch_size,
        strategy=setup.strategy,
        tau=setup.tau,
    )
