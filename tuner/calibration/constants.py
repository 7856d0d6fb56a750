"""Results of a calibration: constants that predict the times of steps, all-reduces and messages."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tuner.domain.cluster import RankDelay, VirtualCluster


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A measured constant with its range; the measurement was repeated in several rounds.

    Args:
        value: Value fitted to the medians over all rounds.
        low: Smallest value fitted to a single round.
        high: Largest value fitted to a single round.
    """

    value: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Link:
    """Constants that predict how long it takes to send a vector between ranks.

    Args:
        latency: A, latency of one hop, in seconds.
        seconds_per_byte: 1 / w, inverse of the bandwidth.
        misfit: Largest relative difference between measured and predicted time, over the sizes of vectors.
        from_law: Predicted and measured times for numbers of ranks that the model was not fitted to, as
            tuples (number of ranks, bytes, predicted seconds, measured seconds).
    """

    latency: Figure
    seconds_per_byte: Figure
    misfit: float
    from_law: tuple[tuple[int, int, float, float], ...] = ()

    @property
    def bytes_per_second(self) -> float:
        """w, the bandwidth in bytes per second; infinite if the time did not depend on the size."""
        return 1.0 / self.seconds_per_byte.value if self.seconds_per_byte.value > 0 else math.inf


@dataclass(frozen=True, kw_only=True)
class Constants:
    """Constants that predict step times and communication times on the calibrated nodes.

    Args:
        fixed_seconds: a0 in c(b) = a0 + a1 b, where c(b) is the step time of a rank that computes alone on b
            samples.
        seconds_per_sample: a1, seconds per sample.
        step_misfit: Largest relative error of a0 + a1 b at one batch size.
        neighbour_slowdown: Step time while all ranks of a node compute at the same time, divided by the step
            time of one rank alone.
        jitter: k, coefficient of variation of a rank's step times.
        persistent: Share of the variance of step times that stays constant within a window of consecutive
            steps.
        overlap: g, how well an all-reduce overlaps with compute; None if one of them was too short to measure
            it.
        collective: Constants of all-reduces.
        messages: Constants of messages between two ranks on different nodes.
        within_node: Constants of all-reduces between the ranks of one node; None if a node has one rank, or
            all nodes are one host.
        parameter_bytes: n, size of the trainable parameters in bytes.
        batch_sizes_per_rank: Samples per step of the timed steps, ascending.
        rank_counts: Numbers of ranks of the timed all-reduces, ascending.
        warnings: Sentences on why the constants may be wrong.
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
        """Returns the description of a virtual cluster with these constants.

        Args:
            overlap: Value of g to use if it could not be measured.
            delays: Artificial delays of some ranks.
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
