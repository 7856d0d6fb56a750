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
        num_ranks: p.
        num_bytes: n, bytes that are reduced.
        latency: A, seconds a hop, as the collective shows it and not a ping.
        bytes_per_second: w.
    """
    p = np.asarray(num_ranks, dtype=float)
    seconds = 2 * (p - 1) * latency + 2 * (p - 1) / p * num_bytes / bytes_per_second
    return np.asarray(seconds, dtype=float)


@dataclass(frozen=True, kw_only=True)
class Placements:
    """Where the ranks of each of `num` steps are.

    Args:
        num_nodes: Nodes with at least one rank, `(num,)`.
        num_ranks: Ranks over all nodes, `(num,)`.
        most_on_a_node: Ranks on the node that has most, `(num,)`.
    """

    num_nodes: Array
    num_ranks: Array
    most_on_a_node: Array


@dataclass(frozen=True, kw_only=True)
class Link:
    """The link between two neighbors of the ring.

    Args:
        latency_seconds: A, of one hop of the whole exchange, above 0.
        bytes_per_second: w, above 0.
    """

    latency_seconds: Values
    bytes_per_second: Values


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How the links between nodes differ from uniform ones.

    Args:
        device_exponent: How bandwidth falls with the devices on a node that share its adapter:
            1 / w grows as k^exponent.
        peer_gain: Logarithm of the bandwidth with several other nodes over that with a single one; above 0
            if one flow between two hosts is limited (AWS: 5 Gbit/s outside of a cluster placement group,
            whatever the machine's own rate), since rings in several orders then take several flows.
        variation: Coefficient of variation of links; the ring is as fast as the slowest of them.
    """

    device_exponent: Values = 0.0
    peer_gain: Values = 0.0
    variation: Values = 0.0


def topology_ring_seconds(
    placements: Placements, num_bytes: Values, *, within: Link, between: Link, sharing: Sharing
) -> Array:
    """Seconds of a ring all-reduce whose hops lie within nodes or between them, `(num,)`.

    With p ranks on N nodes and at most k ranks on a node,

        (2 (N - 1) A_between + 2 (p - N) A_within + 2 ((p - 1) / p) n / w) (1 + v m_N)

    w is w_within on one node, else the slower of w_within and w_between e^(peer gain, N > 2) k^(-exponent);
    m_N is Blom's expected maximum (the ring is Patarasuk and Yuan 2009; latencies hop by hop are exact only
    for alike ranks). It holds while the nodes are of one kind, and not where a library turns to trees for
    small messages.

    Args:
        placements: Of `num` placements.
        num_bytes: n, bytes that are reduced.
        within: Neighbors on one node.
        between: Neighbors on two nodes.
        sharing: How links between nodes differ from uniform ones.
    """
    p, nodes = placements.num_ranks, placements.num_nodes
    outside = between.bytes_per_second * placements.most_on_a_node**-sharing.device_exponent
    outside = np.minimum(outside * np.exp(sharing.peer_gain * (nodes > 2)), within.bytes_per_second)
    bandwidth = np.where(nodes > 1, outside, within.bytes_per_second)
    hops = 2 * (nodes - 1) * between.latency_seconds + 2 * (p - nodes) * within.latency_seconds
    seconds = hops + 2 * (p - 1) / p * num_bytes / bandwidth
    return np.asarray(seconds * (1 + sharing.variation * expected_maximum(nodes)), dtype=float)
