"""Feasibility conditions: checks whether a configuration can run, and gives the reason if it cannot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from search_spaces.configuration import Configuration


class Feasibility(Protocol):
    """A condition that a configuration must meet before it may run."""

    def reason_against(self, configuration: Configuration) -> str | None:
        """Returns why a configuration cannot run; None if it can."""


@dataclass(frozen=True, kw_only=True)
class BatchCoversRanks:
    """Condition: every rank gets at least one sample of each batch.

    Args:
        devices_per_node: Number of ranks on one node.
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

    It applies to training programs that split batches themselves.

    Args:
        devices_per_node: Number of ranks on one node.
        max_per_rank: Largest micro-batch, in samples. A rank with a larger share of the batch accumulates
            gradients over several micro-batches. None for no limit.
    """

    devices_per_node: int = 1
    max_per_rank: int | None = None

    def split(self, configuration: Configuration) -> tuple[int, int]:
        """Returns the number of samples per rank and batch, and the number of micro-batches per rank."""
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
                f"batch_size {batch_size}: {per_rank} samples per rank do not split evenly over {parts} "
                f"micro-batches of at most {self.max_per_rank}"
            )
        return None


@dataclass(frozen=True, kw_only=True)
class RanksWithin:
    """Condition: every rank gets fewer samples of a batch than a rank that ran out of memory.

    Args:
        devices_per_node: Number of ranks on one node.
        too_large_per_rank: Smallest number of samples per rank that ran out of memory.
    """

    devices_per_node: int = 1
    too_large_per_rank: int

    def reason_against(self, configuration: Configuration) -> str | None:
        ranks = configuration.nodes * self.devices_per_node
        per_rank = -(-configuration.batch_size // ranks)
        if per_rank >= self.too_large_per_rank:
            return f"{per_rank} samples per rank, but {self.too_large_per_rank} ran out of memory"
        return None
