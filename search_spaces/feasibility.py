"""Feasibility: predicates over configurations that say why, not only whether."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from search_spaces.configuration import Configuration


class Feasibility(Protocol):
    """A condition a configuration must meet before it may be tried."""

    def reason_against(self, configuration: Configuration) -> str | None:
        """Why this configuration cannot be run, or None if it can."""


@dataclass(frozen=True, kw_only=True)
class BatchCoversRanks:
    """Every rank gets at least one sample of each batch.

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
    """Every rank gets the same number of samples of each batch, in micro-batches of the same size.

    For programs that split their batches themselves and cannot give one rank a sample more.

    Args:
        devices_per_node: Ranks on one node.
        max_per_rank: More samples than this a rank are accumulated over micro-batches; None for no limit.
    """

    devices_per_node: int = 1
    max_per_rank: int | None = None

    def split(self, configuration: Configuration) -> tuple[int, int]:
        """A rank's samples of a batch, and over how many micro-batches they are accumulated."""
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
    """A rank's share of the batch does not exceed what was seen to run out of memory.

    Args:
        devices_per_node: Ranks on one node.
        too_large_per_rank: The smallest number of samples a rank that ran out of memory.
    """

    devices_per_node: int = 1
    too_large_per_rank: int

    def reason_against(self, configuration: Configuration) -> str | None:
        ranks = configuration.nodes * self.devices_per_node
        per_rank = -(-configuration.batch_size // ranks)
        if per_rank >= self.too_large_per_rank:
            return f"{per_rank} samples a rank: {self.too_large_per_rank} were seen to run out of memory"
        return None
