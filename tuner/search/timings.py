"""Finds configurations with the same step time, so that each step time is measured only once."""

from __future__ import annotations

from search_spaces import Configuration
from tuner.analytic.strategy_encoding import Setup, setup_of
from tuner.domain.cluster import Cluster

TimingKey = tuple[int, int, Setup]
"""The values that the step time depends on: nodes, global batch size, and how the ranks communicate."""


def timing_key(configuration: Configuration, cluster: Cluster) -> TimingKey:
    """Returns a key that is equal for all configurations with the same step time.

    Args:
        configuration: The configuration.
        cluster: The cluster, which gives the number of ranks.
    """
    setup = setup_of(configuration, cluster.num_ranks(configuration.nodes))
    return configuration.nodes, configuration.batch_size, setup
