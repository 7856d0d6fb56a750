"""Converts the time a probe held its nodes into the seconds and dollars charged."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.cluster import Cluster


@dataclass(frozen=True, kw_only=True)
class Charge:
    """What something cost.

    Args:
        seconds: Wall-clock seconds, including start-up and evaluation.
        dollars: Price of the nodes held for that time.
    """

    seconds: float = 0.0
    dollars: float = 0.0

    def __add__(self, other: Charge) -> Charge:
        return Charge(seconds=self.seconds + other.seconds, dollars=self.dollars + other.dollars)


def charge(seconds: float, configuration: Configuration, cluster: Cluster) -> Charge:
    """What a configuration costs when its nodes are held for `seconds`."""
    return Charge(seconds=seconds, dollars=seconds * cluster.dollars_per_second(configuration))
