"""Formulas of step time: seconds in which all ranks process one global batch, for each strategy.

`tuner.analytic.strategy_laws` maps the names of these formulas to the functions. Symbols: p, number of ranks;
c, seconds of compute in a step of one rank; n, bytes of the model's parameters; A, seconds of latency per hop
(from one rank to the next); w, bandwidth in bytes per second; tau, steps between two exchanges of gradients
or parameters between ranks.
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
    """Returns the seconds that one rank spends at a parameter server, including waiting, `(num,)`.

    The server handles one request at a time. The formula is mean value analysis (Reiser and Lavenberg 1980),
    with the residual service time of the request in progress (Reiser 1979):

        R_k = s (1 + Q_{k-1} - U_{k-1} / 2),  R_k >= k s - Z
        X_k = k / (Z + R_k),  Q_k = X_k R_k,  U_k = X_k s

    - s: seconds to handle one request; Z: think time, the seconds that a rank spends away from the server
      between two requests.
    - With k ranks: R_k, the seconds that one rank spends at the server per request; X_k, requests per second
      of all ranks; Q_k, the mean number of ranks at the server; U_k, the share of time in which the server is
      busy.

    The formula starts with Q_0 = U_0 = 0. The result is R_p.

    - The server is always busy (saturated) from about 1 + Z / s ranks on. It then completes one request every
      s seconds, and a rank spends p s - Z seconds at the server.
    - The formula assumes that think times vary randomly. If all think times are equal, ranks wait less.
    - Z + R is within 5% of simulations; the error is largest near saturation.

    Args:
        num_ranks: p, number of ranks in each case, whole numbers, `(num,)`.
        service: s, seconds to handle one request, above 0, `(num,)`.
        think: Z, seconds that a rank spends away from the server between two requests, `(num,)`.
    """
    ranks = np.asarray(num_ranks, dtype=float)
    queue, busy = np.zeros_like(ranks), np.zeros_like(ranks)
    found = np.array(service, dtype=float)
    for k in range(1, int(ranks.max(initial=0.0)) + 1):
        spent, least = service * (1.0 + queue - 0.5 * busy), k * service - think
        if np.all((least >= spent) | (ranks < k)):
            # If the server is saturated with k ranks, it is also saturated with more ranks.
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
    """Costs of communication between ranks, and jitter of their steps; the same for all strategies.

    A value is either one number for all steps, or an array `(num,)`.

    Args:
        num_bytes: n, bytes of the model's parameters.
        latency: A, seconds per hop (from one rank to the next) of a collective operation; with `placements`,
            of a hop between nodes.
        bytes_per_second: w, bandwidth of a collective operation; with `placements`, between nodes.
        point_to_point: Bandwidth of a message between two ranks, or between a rank and the server, divided by
            w.
        point_to_point_latency: Latency of a message between two ranks, or between a rank and the server,
            divided by A.
        jitter: Coefficient of variation of the duration of a rank's step.
        persistent: Share of the jitter's variance that is a constant property of a rank, such as a slow node.
        overlap: g, how well communication overlaps with compute: 1 for no overlap, large values for complete
            overlap.
        delays: Artificial delays of ranks.
        peers_wait: Whether messages of gossip take time from the ranks' compute, as they do if ranks share
            cores and memory. Over separate links, messages take no time from compute: a rank does not wait
            for a message, and averages with older parameters instead.
        placements: How the ranks of each step are distributed over nodes, `(num,)`; None if each rank has its
            own node.
        within: The link between neighbors of the ring on one node.
        sharing: Further properties of the links between nodes: shared adapters, several connections,
            variation.
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
        """Returns the seconds of an all-reduce, `(num,)`.

        Args:
            num_ranks: Number of ranks of each step, `(num,)`.
        """
        return topology_ring_seconds(
            self._placements(num_ranks),
            self.num_bytes,
            within=self.within,
            between=Link(latency_seconds=self.latency, bytes_per_second=self.bytes_per_second),
            sharing=self.sharing,
        )

    def message_seconds(self, num_ranks: Array) -> tuple[Array, Array]:
        """Returns latency and transfer time of a message with all model parameters, in seconds.

        Both are means over all other ranks as receivers, some of which are on the same node. Each has the
        shape `(num,)`.

        Args:
            num_ranks: Number of ranks of each step, `(num,)`.
        """
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
    """Training steps of ranks under one strategy, whose duration a formula of step time predicts.

    Args:
        traits: The properties of the strategy.
        compute: c, seconds of compute in a step of one rank, including the effect of shared cores, `(num,)`.
        num_ranks: p, number of ranks in each case, whole numbers, `(num,)`.
        tau: Steps between two exchanges of gradients or parameters, `(num,)`.
        network: The costs of communication, and the jitter and delays of the ranks.
    """

    traits: StrategyTraits
    compute: Array
    num_ranks: Array
    tau: Array
    network: Network


StepTimeLaw = Callable[[RankSteps], Array]
"""Function that returns the seconds in which all ranks together process one global batch, `(num,)`."""


def all_reduce_seconds(steps: RankSteps) -> Array:
    """Returns the step time with all-reduce of gradients, `(num,)`.

    It is the step of the slowest rank, partly overlapped with the all-reduce: T - c' + (c'^g + s^g)^(1/g).

    - T: seconds of the slowest rank's step without the all-reduce.
    - c': seconds of the slowest rank's compute, without artificial delays. Only c' overlaps with the
      all-reduce, which runs during the backward pass.
    - s: seconds of the all-reduce.
    - g: overlap exponent (`Network.overlap`).

    If the delayed rank is the slowest one, its compute is nearer to c (the mean compute of a rank) than to
    c', so the result is up to 2% too low.
    """
    network, slowest = steps.network, slowest_seconds(steps)
    exchange = network.ring_seconds(steps.num_ranks)
    busy = np.minimum(steps.compute * (1 + network.jitter * expected_maximum(steps.num_ranks)), slowest)
    return slowest - busy + overlapped_seconds(busy, exchange, network.overlap)


def averaging_seconds(steps: RankSteps) -> Array:
    """Returns the step time if parameters are averaged every tau steps, `(num,)`.

    It is the step of the slowest rank, plus 1 / tau of an all-reduce. The all-reduce does not overlap with
    compute, since the next step needs its result (Stich 2019; the same applies to the outer step of DiLoCo,
    Douillard et al. 2023).
    """
    return slowest_seconds(steps) + steps.network.ring_seconds(steps.num_ranks) / steps.tau


def peer_seconds(steps: RankSteps) -> Array:
    """Returns the step time with gossip: a rank's own step, plus its waits for messages, `(num,)`.

    No rank waits for the slowest one. Every tau steps, a message takes A + n / w seconds (latency, plus bytes
    divided by bandwidth), and a rank waits for the part of this time that does not overlap with compute.

    Messages between different pairs of ranks are assumed not to slow each other down (Jin et al. 2016,
    section 4). This assumption fails if all messages share one link or the memory of one host.
    """
    network = steps.network
    vectors = per_count(steps.num_ranks, steps.traits.vectors_per_exchange)
    hop, vector = network.message_seconds(steps.num_ranks)
    exchange = vectors * (hop + vector) / steps.tau * float(network.peers_wait)
    return unwaiting_batch_seconds(
        steps.compute, exchange, steps.num_ranks, overlap=network.overlap, delays=network.delays
    )


def server_seconds(steps: RankSteps) -> Array:
    """Returns the step time with a parameter server: a rank's own step, plus a share of a request, `(num,)`.

    Every tau steps, a rank sends a request with all its parameters and waits for the reply; 1 / tau of this
    time is added to each step.

    The server's link receives one request at a time and, at the same time, sends one reply at a time. Each
    takes s = n / w seconds (bytes divided by bandwidth). Requests arrive at least s apart, so replies never
    queue. Ranks therefore only queue for the receiving link, with service time s and think time Z (see
    `server_exchange_seconds`). Z is the time that a rank spends elsewhere between two requests: tau (c + mean
    artificial delay) + 2 A + s, where c is the compute of a step, 2 A is the latency of the round trip and
    the last s is the time of the reply.

    Limits: if ranks have very different think times, the formula computes with their mean. Rank 0, on whose
    host the server is, does not use the link, but the formula treats rank 0 like the other ranks.
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
    """Returns the seconds per step of the slowest rank, without communication, `(num,)`.

    Args:
        steps: The steps, with their strategy and the jitter and delays of their ranks.
    """
    network = steps.network
    return slowest_step_seconds(
        steps.compute,
        steps.num_ranks,
        steps.tau,
        jitter=network.jitter,
        persistent=network.persistent,
        delays=network.delays,
    )
