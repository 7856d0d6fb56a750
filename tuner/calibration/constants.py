"""The results of a calibration: constants with their spread, and the virtual cluster they make."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.domain.cluster import RankDelay, VirtualCluster


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured constant.

    Args:
        value: Fitted to the medians over rounds.
        low: The smallest that one round by itself gave.
        high: The largest.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Link:
    """Time of a vector between ranks.

    Args:
        latency: A, seconds a hop.
        seconds_per_byte: 1 / w.
        misfit: Largest error of the fitted law at one size, relative.
        from_law: What the law says and what was measured where it was not fitted, as
            (ranks, bytes, law, measured), seconds.
    """

    latency: Figure
    seconds_per_byte: Figure
    misfit: float
    from_law: tuple[tuple[int, int, float, float], ...] = ()

    @property
    def bytes_per_second(self) -> float:
        """w; infinite where no size made a difference."""
        return 1.0 / self.seconds_per_byte.value if self.seconds_per_byte.value > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Time of steps and links of the nodes at hand.

    Args:
        fixed_seconds: a0 of c(b) = a0 + a1 b, of a rank that computes alone.
        seconds_per_sample: a1.
        step_misfit: Largest error of that line at one batch size, relative.
        neighbour_slowdown: c(b) while all ranks at hand compute, over that of one alone.
        jitter: k, coefficient of variation of a rank's step.
        persistent: Share of its variance that lasts longer than a window.
        overlap: g of the all-reduce with compute; None if one was too short compared with the other.
        collective: All-reduces.
        messages: Point to point between two nodes' ranks.
        within_node: All-reduces of one node's own ranks; None where it has one, or all nodes are one host.
        parameter_bytes: n.
        batch_sizes_per_rank: Whose steps were timed.
        rank_counts: Whose links were measured.
        warnings: What makes the constants doubtful.
    """

    fixed_seconds: Figure
    seconds_per_sample: Figure
    step_misfit: float
    neighbour_slowdown: float
    jitter: Figure
    persistent: float
    overlap: Figure | None
    collective: Link
    messages: Link
    parameter_bytes: int
    batch_sizes_per_rank: tuple[int, ...]
    rank_counts: tuple[int, ...]
    warnings: tuple[str, ...] = ()
    within_node: Link | None = None

    def virtual_cluster(self, *, overlap: float, delays: tuple[RankDelay, ...] = ()) -> VirtualCluster:
        """Machines like these, as an emulation takes them.

        Args:
            overlap: g if it could not be measured.
            delays: Delays of some ranks.
        """
        return VirtualCluster(
            fixed_seconds=self.fixed_seconds.value,
            seconds_per_sample=self.seconds_per_sample.value,
            jitter=self.jitter.value,
            persistent=self.persistent,
            latency=self.collective.latency.value,
            bytes_per_second=self.collective.bytes_per_second,
            message_latency=self.messages.latency.value,
            message_bytes_per_second=self.messages.bytes_per_second,
            overlap=self.overlap.value if self.overlap is not None else overlap,
            delays=delays,
        )
