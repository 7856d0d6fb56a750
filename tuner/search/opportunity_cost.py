"""Opportunity cost of a probe: the seconds or dollars that are lost because the probe runs now.

Below, the leader is the candidate with the smallest expected cost, if a training of it to the target is
planned but not finished.

- If the goal is to minimize seconds, a probe on nodes that would be idle costs nothing. A probe that delays
  the leader or the end of the search costs the seconds of this delay.
- If the goal is to minimize dollars, every probe costs its own price, because each node in use is paid for.
  Then the leader does not train concurrently with a probe that pays for itself. The training of the leader
  would be wasted if the probe found a better configuration.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.search.runs import run_key
from tuner.search.state import SearchState


@dataclass(frozen=True, kw_only=True)
class OpportunityCost:
    """Computes the opportunity costs of probes for one decision of the policy.

    For example, the leader trains on 2 of 4 nodes. A probe on the other 2 nodes costs nothing if the goal is
    to
    minimize seconds, because these nodes would be idle.

    Args:
        state: State of the search, with the running slices.
        leader: The candidate with the smallest expected cost, if it must still be trained to the target. None
            if no training is planned, or if this candidate cannot be trained.
    """

    state: SearchState
    leader: Configuration | None

    @property
    def counts_seconds(self) -> bool:
        """Whether the goal is to minimize seconds rather than dollars."""
        return self.state.job.goal.minimize == "seconds"

    @property
    def leader_is_under_way(self) -> bool:
        """Whether a slice of the leader's run is running now."""
        return self.leader is not None and self.is_under_way(self.leader)

    @property
    def leader_fits(self) -> bool:
        """Whether the leader is not training, and the limits on slices and nodes allow it to start now."""
        return self.leader is not None and not self.leader_is_under_way and self.state.fits(self.leader)

    def is_under_way(self, configuration: Configuration) -> bool:
        """Whether a run with the learning curve of this configuration (`run_key`) has a running slice."""
        return run_key(self.state.job, configuration) in self.state.keys_under_way

    def leads(self, configuration: Configuration) -> bool:
        """Whether a configuration is the leader and trains to the target while others are probed."""
        return self.state.capacity.is_shared and self.counts_seconds and configuration == self.leader

    def cost(self, configuration: Configuration, seconds: float, price: float) -> float:
        """Returns the opportunity cost of a probe in the goal's unit.

        Args:
            configuration: The configuration to probe.
            seconds: Expected charged seconds of the probe.
            price: Cost of one second of the probe in the goal's unit.
        """
        if not self.state.terms.is_training:
            return 0.0  # emulation uses this machine, but the goal is to save time on the described cluster
        if not self.counts_seconds or not self.state.capacity.is_shared:
            return seconds * price
        return max(seconds - self._idle_seconds(configuration), 0.0)

    def _idle_seconds(self, configuration: Configuration) -> float:
        """Returns for how many seconds the nodes of a probe would be idle without the probe.

        Args:
            configuration: The configuration to probe.
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
