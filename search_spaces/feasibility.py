"""Feasibility: conditions that configurations must meet, each with the reason if it is not met."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from search_spaces.configuration import Configuration


class Feasibility(Protocol):
    """A condition that a configuration must meet before it may run."""

    def reason_against(self, configuration: Configuration) -> str | None:
        """Why a configuration cannot run; None if it can."""


@dataclass(frozen=True, kw_only=True)
class BatchCoversRanks:
    """Condition: every rank gets at least one sample of each batch.

    Args:
        devices_per_node: Ranks on one node.
    """

    devices_per_node: int = 1

    def reason_against(self, configuration: Configuration) -> str | None:
        ranks = configuration.nodes * self.devices_per_node
        if configuration.batch_size < ranks:
            return f"batch_size {configuration.batch_size} leaves some of {ranks} ranks without a sample"
        return None


@dataclass(frozen=True, kw_only=True)
class BatchSplitsEvenly:
    """Condition: every rank gets the same number of samples, in micro-batches of equal size.

    For programs that split batches themselves.

    Args:
        devices_per_node: Ranks on one node.
        max_per_rank: Largest micro-batch; larger shares are accumulated over several. None for no limit.
    """

    devices_per_node: int = 1
    max_per_rank: int | None = None

    def split(self, configuration: Configuration) -> tuple[int, int]:
        """Samples of one rank per batch, and the number of micro-batches over which they are accumulated."""
        per_rank = configuration.batch_size // (configuration.nodes * self.devices_per_node)
        if self.max_per_rank is None:
            return per_rank, 1
        return per_rank, max(1, -(-per_rank // self.max_per_rank))

    def reason_against(self, configuration: Configuration) -> str | None:
        ranks, batch_size = configuration.nodes * self.devices_per_node, configuration.batch_size
        if batch_size < ranks or batch_size % ranks:
            return f"batch_size {batch_size} does not split evenly over {ranks} ranks"
        per_rank, parts = self.split(configuration)
        if per_rank % parts:
            return (
                f"batch_size {batch_size}: {per_rank} samples a rank do not split evenly over {parts} "
                f"micro-batches of at most {self.max_per_rank}"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class RanksWithin:
    """Condition: the share of a rank is smaller than shares that ran out of memory.

    Args:
        devices_per_node: Ranks on one node.
        too_large_per_rank: Smallest number of samples per rank that ran out of memory.
    """

    devices_per_node: int = 1
    too_large_per_rank: int

    def reason_against(self, configuration: Configuration) -> str | None:
        ranks = configuration.nodes * self.devices_per_node
        per_rank = -(-configuration.batch_size // ranks)
        if per_rank >= self.too_large_per_rank:
            return f"{per_rank} samples a rank: {self.too_large_per_rank} were seen to run out of memory"
        return None
