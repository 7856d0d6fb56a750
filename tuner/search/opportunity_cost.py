"""Opportunity cost of a slice: the seconds or dollars that are lost because the slice runs now.

A slice is an uninterrupted part of a training. The leader is the candidate configuration with the smallest
expected cost, if it must still be trained to the target.

- If the goal is to minimize seconds, a slice on nodes that would be idle costs nothing. A slice that delays
  the leader or the end of the search costs the seconds of this delay.
- If the goal is to minimize dollars, every slice costs its own price, because each node in use is paid for.
  The leader then waits until no other slice is worth its price, because its training would be wasted if
  another configuration turned out to be better.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.search.runs import run_key
from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class OpportunityCost:
    """Computes how many seconds or dollars are lost if a slice runs now.

    For example, the best configuration trains on 2 of 4 nodes. A slice on the other 2 nodes costs nothing if
    the goal is to minimize seconds, because these nodes would be idle.

    Args:
        state: State of the search, with the running slices.
        leader: The candidate configuration with the smallest expected cost, if it must still be trained to
            the target. None if no training is planned, or if this candidate cannot be trained.
    """

    state: SearchState
    leader: Configuration | None

    @property
    def counts_seconds(self) -> bool:
        """Whether the goal is to minimize seconds rather than dollars."""
        return self.state.job.goal.minimize == "seconds"

    @property
    def leader_is_under_way(self) -> bool:
        """Whether a slice of the leader, the best candidate so far, is running now."""
        return self.leader is not None and self.is_under_way(self.leader)

    @property
    def leader_fits(self) -> bool:
        """Whether the leader (the best candidate so far) is not training and could start now."""
        return self.leader is not None and not self.leader_is_under_way and self.state.fits(self.leader)

    def is_under_way(self, configuration: Configuration) -> bool:
        """Whether a slice is running that measures the learning curve of this configuration.

        It may be a slice of another configuration with the same learning curve (`run_key`).
        """
        return run_key(self.state.job, configuration) in self.state.keys_under_way

    def leads(self, configuration: Configuration) -> bool:
        """Whether a configuration is the leader, and trains to the target while others are tried."""
        return self.state.capacity.is_shared and self.counts_seconds and configuration == self.leader

    def cost(self, configuration: Configuration, seconds: float, price: float) -> float:
        """Returns the opportunity cost of a slice, in the unit of the goal (seconds or dollars).

        Args:
            configuration: The configuration that the slice would train.
            seconds: Expected charged seconds of the slice.
            price: Cost of one second of the slice in the goal's unit.
        """
        if not self.state.terms.is_training:
            return 0.0  # emulation uses this machine, but the goal is to save time on the described cluster
        if not self.counts_seconds or not self.state.capacity.is_shared:
            return seconds * price
        return max(seconds - self._idle_seconds(configuration), 0.0)

    def _idle_seconds(self, configuration: Configuration) -> float:
        """Returns for how many seconds the nodes of a configuration would be idle if it were not trained now.

        Args:
            configuration: The configuration that a slice would train.
        """
        state, leader = self.state, self.leader
        waits = max((active.left_seconds for active in state.capacity.under_way), default=0.0)
        if leader is None:
            return waits  # the search continues until the running slices have ended
        if self.leader_is_under_way:
            return float("inf")
        held = state.cluster.nodes_held
        if state.capacity.fits(held(configuration), reserved=held(leader), num_others=1):
            return float("inf")
        if not state.fits(leader):
            return waits  # the leader has to wait for nodes, with or without the probe
        return 0.0
