"""Laws of step time: seconds of one global batch under each strategy.

`tuner.analytic.strategy_laws` lists them by name.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from search_spaces import StrategyTraits
from tuner.analytic.all_reduce_cost import Link, Placements, Sharing, topology_ring_seconds
from tuner.analytic.laws import Array, Values, expected_maximum, overlapped_seconds
from tuner.analytic.slowest_rank import (
    mean_delay,
    per_count,
    slowest_step_seconds,
    unwaiting_batch_seconds,
)
from tuner.domain.cluster import RankDelay


def server_exchange_seconds(num_ranks: Array, service: Array, think: Array) -> Array:
    """Seconds that one rank spends at a server, waiting included; the server serves one exchange at a time.

    Mean value analysis (Reiser and Lavenberg 1980), with the residual service of the exchange in progress
    (Reiser 1979), for p ranks, think time Z and a constant service time s:

        R_k = s (1 + Q_{k-1} - U_{k-1} / 2),  R_k >= k s - Z
        X_k = k / (Z + R_k),  Q_k = X_k R_k,  U_k = X_k s

    The server saturates near p* = 1 + Z / s; beyond that a rank waits p s - Z, since the server completes
    one exchange per s. The law holds for think times that vary from turn to turn; ranks in lockstep queue
    less. Z + R is within 5% of simulations; the error is largest near saturation.

    Args:
        num_ranks: p, whole numbers, `(num,)`.
        service: s, seconds, above 0, `(num,)`.
        think: Z, seconds between two visits of one rank, `(num,)`.
    """
    ranks = np.asarray(num_ranks, dtype=float)
    queue, busy = np.zeros_like(ranks), np.zeros_like(ranks)
    found = np.array(service, dtype=float)
    for k in range(1, int(ranks.max(initial=0.0)) + 1):
        spent, least = service * (1.0 + queue - 0.5 * busy), k * service - think
        if np.all((least >= spent) | (ranks < k)):
            # A server that is saturated stays so with every further rank.
            return np.asarray(np.where(ranks >= k, ranks * service - think, found), dtype=float)
        spent = np.maximum(spent, least)
        rate = k / (think + spent)
        queue, busy = rate * spent, rate * service
        found = np.where(ranks >= k, spent, found)
    return found


_INSTANT = Link(latency_seconds=0.0, bytes_per_second=math.inf)
_UNIFORM = Sharing()


@dataclass(frozen=True, kw_only=True)
class Network:
    """The costs of exchanges and jitter, the same for all strategies.

    A value is either one number for all steps, or an array `(num,)`.

    Args:
        num_bytes: n, bytes of the model's parameters.
        latency: A, seconds per hop; if `placements` are given, of a hop between nodes.
        bytes_per_second: w of the collective, likewise.
        point_to_point: Bandwidth between two ranks, or a rank and the server, over w.
        point_to_point_latency: Latency of a message between them, over A.
        jitter: Coefficient of variation of a rank's step.
        persistent: Share of the jitter's variance that stays with a rank.
        overlap: g, how well exchanges overlap with compute: not at all with 1, completely with large values.
        delays: Artificial delays.
        peers_wait: Whether a message between peers delays its rank as far as it does not overlap with
            compute, as on shared cores and memory. Slow links alone delay no rank: what is mixed in is older.
        placements: Where the ranks of each step are, `(num,)`; None if each rank has its own node.
        within: The links between neighbors on one node.
        sharing: How the links between nodes differ from uniform links.
    """

    num_bytes: Values
    latency: Values
    bytes_per_second: Values
    point_to_point: Values = 1.0
    point_to_point_latency: Values = 1.0
    jitter: Values = 0.0
    persistent: Values = 0.5
    overlap: Values = 1.0
    delays: tuple[RankDelay, ...] = ()
    peers_wait: bool = True
    placements: Placements | None = None
    within: Link = _INSTANT
    sharing: Sharing = _UNIFORM

    def _placements(self, num_ranks: Array) -> Placements:
        if self.placements is not None:
            return self.placements
        return Placements(num_nodes=num_ranks, num_ranks=num_ranks, most_on_a_node=np.ones_like(num_ranks))

    def ring_seconds(self, num_ranks: Array) -> Array:
        """Seconds of an all-reduce over `num_ranks` ranks, `(num,)`."""
        return topology_ring_seconds(
            self._placements(num_ranks),
            self.num_bytes,
            within=self.within,
            between=Link(latency_seconds=self.latency, bytes_per_second=self.bytes_per_second),
            sharing=self.sharing,
        )

    def message_seconds(self, num_ranks: Array) -> tuple[Array, Array]:
        """Seconds of latency and of transfer of one parameter vector to an average peer, each `(num,)`."""
        most = self._placements(num_ranks).most_on_a_node
        # Share of a rank's peers that are on its node.
        near = (most - 1) / np.maximum(num_ranks - 1, 1.0)
        far_latency = self.latency * self.point_to_point_latency
        near_vector = self.num_bytes / (self.within.bytes_per_second * self.point_to_point)
        far_vector = self.num_bytes / (self.bytes_per_second * self.point_to_point)
        far_vector = np.maximum(far_vector * most**self.sharing.device_exponent, near_vector)
        hop = near * self.within.latency_seconds + (1 - near) * far_latency
        return hop, near * near_vector + (1 - near) * far_vector


@dataclass(frozen=True, kw_only=True)
class RankSteps:
    """Steps of ranks that train by one strategy, of which a law gives the seconds.

    Args:
        traits: The properties of the strategy.
        compute: c, seconds of compute in a step of one rank, sharing of cores included, `(num,)`.
        num_ranks: p, whole numbers, `(num,)`.
        tau: Steps between two exchanges, `(num,)`.
        network: The costs of exchanges.
    """

    traits: StrategyTraits
    compute: Array
    num_ranks: Array
    tau: Array
    network: Network


StepTimeLaw = Callable[[RankSteps], Array]
"""Returns the seconds in which all ranks together process one global batch, `(num,)`."""


def all_reduce_seconds(steps: RankSteps) -> Array:
    """The slowest rank's step, with an all-reduce of the gradients that overlaps with it.

    T - c' + (c'^g + s^g)^(1/g): T is the slowest rank's step without the exchange s, and c' its compute
    without delays, since the exchange overlaps with the backward pass and not with a delay. If the delayed
    rank is last, its own c is nearer than c', so the law is up to 2% too low.
    """
    network, slowest = steps.network, slowest_seconds(steps)
    exchange = network.ring_seconds(steps.num_ranks)
    busy = np.minimum(steps.compute * (1 + network.jitter * expected_maximum(steps.num_ranks)), slowest)
    return slowest - busy + overlapped_seconds(busy, exchange, network.overlap)


def averaging_seconds(steps: RankSteps) -> Array:
    """The slowest rank's tau steps and one all-reduce of the parameters, over tau.

    The all-reduce does not overlap with compute: the next step needs its result (Stich 2019; the same for
    the outer step of DiLoCo, Douillard et al. 2023).
    """
    return slowest_seconds(steps) + steps.network.ring_seconds(steps.num_ranks) / steps.tau


def peer_seconds(steps: RankSteps) -> Array:
    """A rank's own steps, with the part of (A + n/w) / tau for which it waits; no maximum over ranks.

    Exchanges of different pairs do not slow each other down (Jin et al. 2016, section 4). This no longer
    holds if one link, or the memory of one host, carries all of them.
    """
    network = steps.network
    vectors = per_count(steps.num_ranks, steps.traits.vectors_per_exchange)
    hop, vector = network.message_seconds(steps.num_ranks)
    exchange = vectors * (hop + vector) / steps.tau * float(network.peers_wait)
    return unwaiting_batch_seconds(
        steps.compute, exchange, steps.num_ranks, overlap=network.overlap, delays=network.delays
    )


def server_seconds(steps: RankSteps) -> Array:
    """A rank's own steps, and every tau of them a round trip 2 A, its turn at the server and the answer.

    The server's link consists of two stations that work at once: one receives vectors, one sends answers,
    s = n / w each. Vectors reach the second at intervals of s and never queue there. So its time belongs to
    the time between two visits, Z = tau c + 2 A + s, as do latencies, which overlap between ranks, and the
    mean delay. Ranks with very different think times queue as if all had the mean. The law ignores that
    rank 0, which hosts the server, does not use the link.
    """
    compute, num_ranks, network = steps.compute, steps.num_ranks, steps.network
    hop, vector = network.message_seconds(num_ranks)
    service = np.maximum(vector, 1e-12)
    back_and_forth = 2.0 * hop + service
    away = steps.tau * (compute + mean_delay(num_ranks, network.delays)) + back_and_forth
    at_server = server_exchange_seconds(num_ranks, service, away)
    exchange = np.where(num_ranks > 1, back_and_forth + at_server, 0.0) / steps.tau
    return unwaiting_batch_seconds(compute, exchange, num_ranks, overlap=1.0, delays=network.delays)


def slowest_seconds(steps: RankSteps) -> Array:
    """Seconds per step until the slowest rank is done, without the exchange, `(num,)`."""
    network = steps.network
    return slowest_step_seconds(
        steps.compute,
        steps.num_ranks,
        steps.tau,
        jitter=network.jitter,
        persistent=network.persistent,
        delays=network.delays,
    )
