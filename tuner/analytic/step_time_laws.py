"""Laws of step time: seconds of one global batch under every strategy, from its traits."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from search_spaces import StrategyTraits
from tuner.analytic.laws import Array, Values, expected_maximum, overlapped_seconds
from tuner.analytic.placement import Link, Placements, Sharing, topology_ring_seconds
from tuner.analytic.slowest_rank import (
    mean_delay,
    per_count,
    slowest_step_seconds,
    unwaiting_batch_seconds,
)
from tuner.domain.cluster import RankDelay


def server_exchange_seconds(num_ranks: Array, service: Array, think: Array) -> Array:
    """Seconds one rank spends at a server that serves one exchange at a time, waiting included.

    Mean value analysis (Reiser and Lavenberg 1980) with the residual service of the exchange that is
    found in progress (Reiser 1979); p ranks, think time Z, and service s, which is constant since each
    exchange copies so many bytes:

        R_k = s (1 + Q_{k-1} - U_{k-1} / 2),  R_k >= k s - Z
        X_k = k / (Z + R_k),  Q_k = X_k R_k,  U_k = X_k s

    The server saturates near p* = 1 + Z / s; beyond it a rank waits p s - Z, since no more than one
    exchange in s gets through. It holds for think times that differ from turn to turn; ranks in lockstep
    queue less. Z + R is within 5% of simulations, worst where the server is about to saturate.

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

    Numbers may differ from step to step: each is one for all, or an array `(num,)`.

    Args:
        num_bytes: n, bytes of the model's parameters.
        latency: A, seconds a hop; between nodes, if those within are distinguished.
        bytes_per_second: w of the collective, likewise.
        point_to_point: Bytes a second between two ranks, or a rank and the server, over w.
        point_to_point_latency: Seconds of a message between them without its bytes, over A.
        jitter: Coefficient of variation of a rank's step.
        persistent: Share of the jitter's variance that stays with a rank.
        overlap: g, how well exchanges hide behind compute: 1 not at all, large values wholly.
        delays: Artificial delays.
        peers_wait: Whether a message between peers that does not overlap with compute delays its rank, as
            if both share cores and memory; links alone delay nobody: what is mixed in is older, or less.
        placements: Where the ranks of each step are, `(num,)`; None if all hops are alike, as if each rank
            had a node of its own.
        within: The links of neighbors on one node.
        sharing: How the links between nodes differ from uniform ones.
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
        """An all-reduce over so many ranks, `(num,)`."""
        return topology_ring_seconds(
            self._placements(num_ranks),
            self.num_bytes,
            within=self.within,
            between=Link(latency_seconds=self.latency, bytes_per_second=self.bytes_per_second),
            sharing=self.sharing,
        )

    def message_seconds(self, num_ranks: Array) -> tuple[Array, Array]:
        """A and n / w of one parameter vector between two ranks, means over a rank's peers, each `(num,)`."""
        most = self._placements(num_ranks).most_on_a_node
        # The share of a rank's peers that are on its node.
        near = (most - 1) / np.maximum(num_ranks - 1, 1.0)
        far_latency = self.latency * self.point_to_point_latency
        near_vector = self.num_bytes / (self.within.bytes_per_second * self.point_to_point)
        far_vector = self.num_bytes / (self.bytes_per_second * self.point_to_point)
        far_vector = np.maximum(far_vector * most**self.sharing.device_exponent, near_vector)
        hop = near * self.within.latency_seconds + (1 - near) * far_latency
        return hop, near * near_vector + (1 - near) * far_vector


def batch_seconds(
    traits: StrategyTraits, compute: Array, num_ranks: Array, tau: Array, network: Network
) -> Array:
    """Seconds in which all ranks together process one global batch.

    Args:
        traits: The strategy.
        compute: c, seconds a step of one rank, sharing of cores included, `(num,)`.
        num_ranks: p, whole numbers, `(num,)`.
        tau: Steps between two exchanges, `(num,)`.
        network: What exchanges cost.
    """
    if traits.partners == "server":
        return _through_a_server(compute, num_ranks, tau, network)
    if traits.partners == "peer":
        return _between_peers(traits, compute, num_ranks, tau, network)
    slowest = slowest_step_seconds(
        compute,
        num_ranks,
        tau,
        jitter=network.jitter,
        persistent=network.persistent,
        delays=network.delays,
    )
    if traits.exchanged == "gradients":
        return _all_reduced(compute, slowest, num_ranks, network)
    # The slowest rank's tau steps and one all-reduce of the parameters, over tau. Nothing of the all-reduce
    # hides: the next step needs what it brings (Stich 2019; for the outer step of DiLoCo, Douillard et al.
    # 2023, the same).
    return slowest + network.ring_seconds(num_ranks) / tau


def _all_reduced(compute: Array, slowest: Array, num_ranks: Array, network: Network) -> Array:
    """The slowest rank's step with an all-reduce of the gradients that overlaps with it.

    T - c' + (c'^g + s^g)^(1/g), T being the slowest rank's step without the exchange (`slowest`) and c' the
    slowest's without delays: the exchange overlaps with the backward pass, not with a delay.
    If the delayed rank is last, its own c is nearer than c', so the law is up to 2% too low.
    """
    exchange = network.ring_seconds(num_ranks)
    busy = np.minimum(compute * (1 + network.jitter * expected_maximum(num_ranks)), slowest)
    return slowest - busy + overlapped_seconds(busy, exchange, network.overlap)


def _between_peers(
    traits: StrategyTraits, compute: Array, num_ranks: Array, tau: Array, network: Network
) -> Array:
    """A rank's own steps with what of (A + n/w) / tau is waited for; never a maximum over ranks.

    Exchanges of different pairs do not hinder each other (Jin et al. 2016, section 4), which ends where
    one link or the memory of one host carries them all.
    """
    vectors = per_count(num_ranks, traits.vectors_per_exchange)
    hop, vector = network.message_seconds(num_ranks)
    exchange = vectors * (hop + vector) / tau * float(network.peers_wait)
    return unwaiting_batch_seconds(
        compute, exchange, num_ranks, overlap=network.overlap, delays=network.delays
    )


def _through_a_server(compute: Array, num_ranks: Array, tau: Array, network: Network) -> Array:
    """A rank's own steps, and every tau of them 2 A, its turn at the server and the answer.

    The server's link is two stations, one that takes vectors and one that sends answers, both at once:
    s = n / w each. Vectors reach the second at intervals of s, where they never queue; so its time
    belongs to that between two visits, Z = tau c + 2 A + s, as do latencies, which overlap between ranks,
    and the mean delay. Under an exclusive slot the service would be 2 (A + n / w). Ranks whose think times
    differ much queue as their mean. All p queue: the law ignores that rank 0 holds the server.
    """
    hop, vector = network.message_seconds(num_ranks)
    service = np.maximum(vector, 1e-12)
    back_and_forth = 2.0 * hop + service
    away = tau * (compute + mean_delay(num_ranks, network.delays)) + back_and_forth
    at_server = server_exchange_seconds(num_ranks, service, away)
    exchange = np.where(num_ranks > 1, back_and_forth + at_server, 0.0) / tau
    return unwaiting_batch_seconds(compute, exchange, num_ranks, overlap=1.0, delays=network.delays)
