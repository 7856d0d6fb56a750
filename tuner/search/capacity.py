"""Capacity for slices: limits on concurrent slices and nodes, and the slices in flight."""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.measurement import Purpose


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A slice that was started and has not ended.

    Args:
        probe_id: ID of its probe.
        configuration: The configuration that it runs.
        purpose: Why it runs.
        num_nodes: Number of nodes that it holds.
        elapsed_seconds: Seconds since it was started.
        expected_seconds: Expected seconds from its start to its end; 0 if unknown.
    """

    probe_id: int
    configuration: Configuration
    purpose: Purpose
    num_nodes: int
    elapsed_seconds: float = 0.0
    expected_seconds: float = 0.0

    def held_seconds(self, *, to_end: bool) -> float:
        """Seconds for which it has held its nodes, or, with `to_end`, will probably have at its end."""
        return max(self.elapsed_seconds, self.expected_seconds) if to_end else self.elapsed_seconds

    @property
    def left_seconds(self) -> float:
        """Seconds for which it is expected to hold its nodes from now."""
        return max(self.expected_seconds - self.elapsed_seconds, 0.0)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """Limits on concurrent slices, and the slices in flight.

    Args:
        num_slots: Maximum number of concurrent slices.
        num_nodes: Maximum number of nodes in use; None for no limit.
        under_way: Slices in flight, in the order in which they started.
        elapsed_seconds: Time with a slice in flight that ended slices do not include yet.
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
        """Whether a slice can start now. A slice always can if no other is in flight.

        Args:
            num_nodes: Number of nodes that the slice needs.
            reserved: Number of nodes to leave free for other slices.
            num_others: Number of slots to leave free for other slices.
        """
        if len(self.under_way) + num_others >= self.num_slots:
            return False
        if not self.under_way and not num_others:
            return True
        held = sum(active.num_nodes for active in self.under_way)
        return self.num_nodes is None or held + reserved + num_nodes <= self.num_nodes
