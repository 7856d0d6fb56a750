"""Limits on the number of concurrent slices and of nodes in use, and the slices that are running now.

A slice is an uninterrupted part of a training.
"""

from __future__ import annotations

from dataclasses import dataclass

from search_spaces import Configuration
from tuner.domain.measurement import Purpose


@dataclass(frozen=True, kw_only=True)
class UnderWay:
    """A running slice: an uninterrupted part of a training that was started and has not ended.

    Args:
        probe_id: ID of the probe (the trial training) that the slice belongs to.
        configuration: The configuration that the slice trains or times.
        purpose: Purpose of the slice: to time steps, to learn about the configuration, or to reach the
            target.
        num_nodes: Number of nodes that the slice uses.
        elapsed_seconds: Seconds since the slice got its nodes.
        expected_seconds: Expected seconds from the start of the slice to its end; 0 if unknown.
    """

    probe_id: int
    configuration: Configuration
    purpose: Purpose
    num_nodes: int
    elapsed_seconds: float = 0.0
    expected_seconds: float = 0.0

    def held_seconds(self, *, to_end: bool) -> float:
        """Returns for how many seconds the running slice occupies its nodes.

        Args:
            to_end: Whether to count the seconds until the expected end of the slice. If not, only the seconds
                until now are counted.
        """
        return max(self.elapsed_seconds, self.expected_seconds) if to_end else self.elapsed_seconds

    @property
    def left_seconds(self) -> float:
        """Expected seconds from now until the running slice ends."""
        return max(self.expected_seconds - self.elapsed_seconds, 0.0)


@dataclass(frozen=True, kw_only=True)
class Capacity:
    """How many slices (uninterrupted parts of trainings) may run at once, and which ones are running now.

    Args:
        num_slots: Maximum number of concurrent slices.
        num_nodes: Maximum number of nodes that all slices may use together; None for no limit.
        under_way: The running slices, in the order in which they started.
        elapsed_seconds: Seconds since the start of the first running slice, without the time that is already
            counted for slices that have ended.
    """

    num_slots: int = 1
    num_nodes: int | None = None
    under_way: tuple[UnderWay, ...] = ()
    elapsed_seconds: float = 0.0

    @property
    def is_shared(self) -> bool:
        """Whether more than one slice may run at a time."""
        return self.num_slots > 1

    @property
    def probe_ids(self) -> frozenset[int]:
        """IDs of the probes (trial trainings) that have a running slice."""
        return frozenset(active.probe_id for active in self.under_way)

    def fits(self, num_nodes: int, *, reserved: int = 0, num_others: int = 0) -> bool:
        """Whether the limits on slices and nodes allow a new slice to start now.

        If no other slice is running or about to start, the limit on nodes is ignored.

        Args:
            num_nodes: Number of nodes that the new slice needs.
            reserved: Number of nodes to keep free for other slices that are about to start.
            num_others: Number of other slices that are about to start.
        """
        if len(self.under_way) + num_others >= self.num_slots:
            return False
        if not self.under_way and not num_others:
            return True
        held = sum(active.num_nodes for active in self.under_way)
        return self.num_nodes is None or held + reserved + num_nodes <= self.num_nodes
