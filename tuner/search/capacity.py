"""Free capacity for slices: limits on concurrent slices and nodes, and the slices in flight."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.measurement import Purpose


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A slice that was started and has not ended.

    Args:
        probe_id: Its probe.
        configuration: What runs.
        purpose: Why.
        num_nodes: Nodes of the cluster that it holds.
        elapsed_seconds: Since it was started.
        expected_seconds: From its start to its end; 0 where that is not stated in seconds.
    """

    probe_id: int
    configuration: Configuration
    purpose: Purpose
    num_nodes: int
    elapsed_seconds: float = 0.0
    expected_seconds: float = 0.0

    def held_seconds(self, *, to_end: bool) -> float:
        """How long it has held its nodes, or is expected to have held them at its end."""
        return max(self.elapsed_seconds, self.expected_seconds) if to_end else self.elapsed_seconds

    @property
    def left_seconds(self) -> float:
        """How long it may still hold its nodes."""
        return max(self.expected_seconds - self.elapsed_seconds, 0.0)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Limits on concurrent slices, and the slices in flight.

    Args:
        num_slots: Slices at once.
        num_nodes: Nodes at once; None for any number.
        under_way: Slices that have not ended, the first to start first.
        elapsed_seconds: Time with a slice in flight that no ended slice accounts for yet.
    """

    num_slots: int = 1
    num_nodes: int | None = None
    under_way: tuple[UnderWay, ...] = ()
    elapsed_seconds: float = 0.0

    @property
    def is_shared(self) -> bool:
        """Whether several slices may be in flight at once."""
        return self.num_slots > 1

    @property
    def probe_ids(self) -> frozenset[int]:
        """Probes with a slice in flight."""
        return frozenset(active.probe_id for active in self.under_way)

    def fits(self, num_nodes: int, *, reserved: int = 0, num_others: int = 0) -> bool:
        """Whether a slice on so many nodes may be started now; alone, one always may.

        Args:
            num_nodes: What it holds.
            reserved: Nodes to leave free for others.
            num_others: Slots to leave free for others.
        """
        if len(self.under_way) + num_others >= self.num_slots:
            return False
        if not self.under_way and not num_others:
            return True
        held = sum(active.num_nodes for active in self.under_way)
        return self.num_nodes is None or held + reserved + num_nodes <= self.num_nodes
