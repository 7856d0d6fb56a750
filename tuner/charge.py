"""The one rule that turns the time a probe held its nodes into seconds and dollars charged."""

from __future__ import annotations

from dataclasses import dataclass

from tuner.cluster import Cluster

SECONDS_PER_HOUR = 3600.0


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What something cost.

    Args:
        seconds: Wall-clock seconds, start-up and scoring included.
        dollars: Price of the nodes held for that time.
    """

    seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(seconds=self.seconds + other.seconds, dollars=self.dollars + other.dollars)


def charge(seconds: float, num_nodes: int, cluster: Cluster) -> Charge:
    """What `num_nodes` nodes cost when held for `seconds`: node-hours times the price of one."""
    node_hours = seconds * num_nodes / SECONDS_PER_HOUR
    return Charge(seconds=seconds, dollars=node_hours * cluster.dollars_per_node_hour)
