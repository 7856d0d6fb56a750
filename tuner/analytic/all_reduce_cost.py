"""Cost law of all-reduce: the seconds of a ring over ranks, wherever they are placed.

The law assumes one ring through all ranks. Fitted to Pollux's throughput table, a ring leaves a mean misfit
of 6.7-7.0% of the step on at most 4 nodes; a hierarchy (rings within the nodes, then one over them) leaves
7.1-7.8%.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array, Values, expected_maximum


def ring_all_reduce_seconds(
    num_ranks: Array, num_bytes: float, *, latency: Values, bytes_per_second: Values
) -> Array:
    """Seconds of a ring all-reduce: 2 (p - 1) A + 2 ((p - 1) / p) n / w (Patarasuk and Yuan 2009).

    Args:
        num_ranks: p, `(num,)`.
        num_bytes: n, bytes to reduce.
        latency: A, seconds per hop of the collective (longer than a ping).
        bytes_per_second: w, bandwidth.
    """
    p = np.asarray(num_ranks, dtype=float)
    seconds = 2 * (p - 1) * latency + 2 * (p - 1) / p * num_bytes / bytes_per_second
    return np.asarray(seconds, dtype=float)


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Where the ranks of each of `num` steps are.

    Args:
        num_nodes: Nodes with at least one rank, `(num,)`.
        num_ranks: Ranks on all nodes, `(num,)`.
        most_on_a_node: Largest number of ranks on one node, `(num,)`.
    """

    num_nodes: Array
    num_ranks: Array
    most_on_a_node: Array


@dataclass(frozen=True, kw_only=True)
class Link:
    """The link between two neighbors of the ring.

    Args:
        latency_seconds: A, seconds per hop, at least 0.
        bytes_per_second: w, bandwidth, above 0.
    """

    latency_seconds: Values
    bytes_per_second: Values


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How the links between nodes differ from uniform links.

    Args:
        device_exponent: Bandwidth falls as k^-exponent, with k devices that share the adapter of a node.
        peer_gain: Logarithm of the bandwidth to several other nodes over that to a single one. It is above 0
            if a flow between two hosts is limited (AWS: 5 Gbit/s outside of a cluster placement group),
            since rings in several orders then use several flows.
        variation: Coefficient of variation of links; the ring is as fast as the slowest link.
    """

    device_exponent: Values = 0.0
    peer_gain: Values = 0.0
    variation: Values = 0.0


def topology_ring_seconds(
    placements: Placements, num_bytes: Values, *, within: Link, between: Link, sharing: Sharing
) -> Array:
    """Seconds of a ring all-reduce over placed ranks, `(num,)`.

    With p ranks on N nodes, and at most k ranks on one node:

        (2 (N - 1) A_between + 2 (p - N) A_within + 2 ((p - 1) / p) n / w) (1 + v m_N)

    On one node w is w_within; on several, it is the smaller of w_within and w_between k^-exponent, times
    e^(peer gain) if N > 2. m_N is Blom's expected maximum, v the variation of links. The ring is that of
    Patarasuk and Yuan 2009; latencies add up per hop only if ranks are alike. The law holds for nodes of one
    kind, and not for libraries that use trees for small messages.

    Args:
        placements: Where the ranks are.
        num_bytes: n, bytes to reduce.
        within: The link between neighbors on one node.
        between: The link between neighbors on two nodes.
        sharing: How links between nodes differ from uniform links.
    """
    p, nodes = placements.num_ranks, placements.num_nodes
    outside = between.bytes_per_second * placements.most_on_a_node**-sharing.device_exponent
    outside = np.minimum(outside * np.exp(sharing.peer_gain * (nodes > 2)), within.bytes_per_second)
    bandwidth = np.where(nodes > 1, outside, within.bytes_per_second)
    hops = 2 * (nodes - 1) * between.latency_seconds + 2 * (p - nodes) * within.latency_seconds
    seconds = hops + 2 * (p - 1) / p * num_bytes / bandwidth
    return np.asarray(seconds * (1 + sharing.variation * expected_maximum(nodes)), dtype=float)
