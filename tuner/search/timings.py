"""Keys of step times: configurations with the same nodes, batch size and communication share a step time."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.analytic.strategy_encoding import Setup, setup_of
from tuner.domain.cluster import Cluster

TimingKey = tuple[int, int, Setup]
"""The values that the step time depends on: nodes, global batch size, and how the ranks communicate."""


def timing_key(configuration: Configuration, cluster: Cluster) -> TimingKey:
    """Key of the configurations that share this configuration's step time."""
    setup = setup_of(configuration, cluster.num_ranks(configuration.nodes))
    return configuration.nodes, configuration.batch_size, setup
