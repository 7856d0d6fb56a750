"""Cost model of all-reduce: seconds of a ring over ranks that are placed on any nodes.

The model assumes one ring through all ranks. Fitted to Pollux's throughput table, it has a mean error of
6.7-7.0% of the step time on at most 4 nodes. A hierarchy (rings within the nodes, then a ring over the nodes)
has an error of 7.1-7.8%.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array, Values, expected_maximum


def ring_all_reduce_seconds(
    num_ranks: Array, num_bytes: float, *, latency: Values, bytes_per_second: Values
) -> Array:
    """Returns the seconds of a ring all-reduce, `(num,)`.

    The formula is 2 (p - 1) A + 2 ((p - 1) / p) n / w (Patarasuk and Yuan 2009).

    Args:
        num_ranks: p, number of ranks in each case, `(num,)`.
        num_bytes: n, bytes to reduce.
        latency: A, seconds per hop of the collective (longer than a ping).
        bytes_per_second: w, bandwidth.
    """
    p = np.asarray(num_ranks, dtype=float)
    seconds = 2 * (p - 1) * latency + 2 * (p - 1) / p * num_bytes / bytes_per_second
    return np.asarray(seconds, dtype=float)


@dataclass(frozen=True, kw_only=True)
class Placements:
    """The placement of ranks on nodes, for each of `num` steps.

    Args:
        num_nodes: Number of nodes with at least one rank, `(num,)`.
        num_ranks: Number of ranks on all nodes, `(num,)`.
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
    """Differences between the links between nodes and uniform links.

    Args:
        device_exponent: Exponent of the bandwidth k^-exponent, where k devices share the network adapter of a
            node.
        peer_gain: Logarithm of the bandwidth to several other nodes divided by that to a single one. It is
            above 0 if the rate of one flow between two hosts is limited (AWS: 5 Gbit/s outside of a cluster
            placement group), since rings in several orders then use several flows.
        variation: Coefficient of variation of the links' speeds; the ring is as fast as its slowest link.
    """

    device_exponent: Values = 0.0
    peer_gain: Values = 0.0
    variation: Values = 0.0


def topology_ring_seconds(
    placements: Placements, num_bytes: Values, *, within: Link, between: Link, sharing: Sharing
) -> Array:
    """Returns the seconds of a ring all-reduce over ranks on any nodes, `(num,)`.

    With p ranks on N nodes, and at most k ranks on one node:

        (2 (N - 1) A_between + 2 (p - N) A_within + 2 ((p - 1) / p) n / w) (1 + v m_N)

    - On one node, w is w_within.
    - On several nodes, w is the smaller of w_within and w_between k^-exponent. If N > 2, the latter is
      multiplied by e^(peer gain).
    - m_N is Blom's expected maximum (`expected_maximum`), v the variation of links.

    The ring is that of Patarasuk and Yuan 2009. Limits: latencies add up per hop only if all ranks are
    equally fast; all nodes must be of one kind; libraries that use trees for small messages are faster.

    Args:
        placements: The placement of the ranks.
        num_bytes: n, bytes to reduce.
        within: The link between neighbors of the ring on one node.
        between: The link between neighbors of the ring on two nodes.
        sharing: Differences between the links between nodes and uniform links.
    """
    p, nodes = placements.num_ranks, placements.num_nodes
    outside = between.bytes_per_second * placements.most_on_a_node**-sharing.device_exponent
    outside = np.minimum(outside * np.exp(sharing.peer_gain * (nodes > 2)), within.bytes_per_second)
    bandwidth = np.where(nodes > 1, outside, within.bytes_per_second)
    hops = 2 * (nodes - 1) * between.latency_seconds + 2 * (p - nodes) * within.latency_seconds
    seconds = hops + 2 * (p - 1) / p * num_bytes / bandwidth
    return np.asarray(seconds * (1 + sharing.variation * expected_maximum(nodes)), dtype=float)
