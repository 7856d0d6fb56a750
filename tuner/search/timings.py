"""Which configurations share a step time: same nodes, batch, strategy and steps between exchanges."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.analytic.strategy_encoding import Setup, setup_of
from tuner.domain.cluster import Cluster

TimingKey = tuple[int, int, Setup]
"""All that seconds a step depend on: nodes, global batch size, and how the ranks exchange."""


def timing_key(configuration: Configuration, cluster: Cluster) -> TimingKey:
    """The configurations that a timing of this one holds for."""
    setup = setup_of(configuration, cluster.num_ranks(configuration.nodes))
    return configuration.nodes, configuration.batch_size, setup
