"""Opportunity cost of running a probe concurrently with other slices and the leader's own training.

Elapsed time counts once, however many nodes are busy. So a probe on nodes that would be idle costs no time.
It costs time if it keeps the leader from its nodes, or the search from its end: as much as it takes longer
than what delays them anyway. Dollars are paid for every node that is held: if the goal is to minimize
dollars, every probe costs its own price, and the leader does not train concurrently with a probe that is
worth its price, since that training is wasted if the probe goes well.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.search.runs import run_key
from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class OpportunityCost:
    """The costs of one decision.

    Args:
        state: What is known, and the slices in flight.
        leader: What is expected to cost least, if it is still to be trained; None if it is not.
    """

    state: SearchState
    leader: Configuration | None

    @property
    def counts_seconds(self) -> bool:
        """Whether the goal is to minimize seconds, not dollars."""
        return self.state.job.goal.minimize == "seconds"

    @property
    def leader_is_under_way(self) -> bool:
        """Whether the leader trains."""
        return self.leader is not None and self.is_under_way(self.leader)

    @property
    def leader_fits(self) -> bool:
        """Whether the leader may be started now."""
        return self.leader is not None and not self.leader_is_under_way and self.state.fits(self.leader)

    def is_under_way(self, configuration: Configuration) -> bool:
        """Whether a run with these statistics is."""
        return run_key(self.state.job, configuration) in self.state.keys_under_way

    def leads(self, configuration: Configuration) -> bool:
        """Whether a configuration trains as the leader, so that it is not to be probed."""
        return self.state.capacity.is_shared and self.counts_seconds and configuration == self.leader

    def cost(self, configuration: Configuration, seconds: float, price: float) -> float:
        """What a probe costs in the goal's unit.

        Args:
            configuration: What is probed.
            seconds: How long the probe takes.
            price: Of a second of it, in the goal's unit.
        """
        if not self.state.terms.is_training:
            return 0.0  # it is paid for with another machine's time than what it saves
        if not self.counts_seconds or not self.state.capacity.is_shared:
            return seconds * price
        return max(seconds - self._idle_seconds(configuration), 0.0)

    def _idle_seconds(self, configuration: Configuration) -> float:
        """How long the nodes of a probe would be idle without it."""
        state, leader = self.state, self.leader
        waits = max((active.left_seconds for active in state.capacity.under_way), default=0.0)
        if leader is None:
            return waits  # the search continues until the slices in flight have ended
        if self.leader_is_under_way:
            return float("inf")
        held = state.cluster.nodes_held
        if state.capacity.fits(held(configuration), reserved=held(leader), num_others=1):
            return float("inf")
        if not state.fits(leader):
            return waits  # the leader waits for nodes anyway
        return 0.0
