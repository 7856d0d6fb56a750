"""Cost model of all-reduce: seconds of a ring of ranks, for any distribution of the ranks over nodes.

The model assumes one ring through all ranks. Fitted to the throughput table of Pollux (Qiao et al. 2021), it
has a mean error of 6.7-7.0% of the step time on at most 4 nodes. A model with a hierarchy of rings (one ring
within each node, then one ring over the nodes) has an error of 7.1-7.8%.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tuner.analytic.laws import Array, Values, expected_maximum


def ring_all_reduce_seconds(
    num_ranks: Array, num_bytes: float, *, latency: Values, bytes_per_second: Values
) -> Array:
    """Returns the seconds of a ring all-reduce if all links between ranks are equal, `(num,)`.

    The formula is 2 (p - 1) A + 2 ((p - 1) / p) n / w (Patarasuk and Yuan 2009), with the symbols of the
    arguments.

    Args:
        num_ranks: p, number of ranks in each case, `(num,)`.
        num_bytes: n, bytes to reduce.
        latency: A, seconds per hop of the collective (longer than the latency of a ping).
        bytes_per_second: w, bandwidth of the slowest link of the ring.
    """
    p = np.asarray(num_ranks, dtype=float)
    seconds = 2 * (p - 1) * latency + 2 * (p - 1) / p * num_bytes / bytes_per_second
    return np.asarray(seconds, dtype=float)


@dataclass(frozen=True, kw_only=True)
class Placements:
    """How the ranks are distributed over nodes, for each of `num` steps.

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
    """The connection (network or bus) between two ranks that are neighbors in the ring of an all-reduce.

    Args:
        latency_seconds: A, seconds that a message takes from one rank to the next in addition to its
            transfer, at least 0.
        bytes_per_second: w, bandwidth in bytes per second, above 0.
    """

    latency_seconds: Values
    bytes_per_second: Values


@dataclass(frozen=True, kw_only=True)
class Sharing:
    """How far the network links between nodes differ from equally fast links that one rank each uses.

    Args:
        device_exponent: x: if k devices share the network adapter of a node, its bandwidth for each of them
            is multiplied by k^-x. 0 means that sharing the adapter costs nothing.
        peer_gain: h, logarithm of (bandwidth of one node to several other nodes divided by its bandwidth to a
            single other node). On AWS, for example, one connection between two hosts outside of a cluster
            placement group is limited to 5 Gbit/s. Rings that visit the nodes in different orders use several
            connections at once, so the peer gain is above 0.
        variation: v, coefficient of variation of the speeds of links; the ring is as fast as its slowest
            link.
    """

    device_exponent: Values = 0.0
    peer_gain: Values = 0.0
    variation: Values = 0.0


def topology_ring_seconds(
    placements: Placements, num_bytes: Values, *, within: Link, between: Link, sharing: Sharing
) -> Array:
    """Returns the seconds of a ring all-reduce for any distribution of the ranks over nodes, `(num,)`.

    The p ranks are on N nodes, with at most k ranks on one node. A_between and w_between are latency (seconds
    per hop) and bandwidth (bytes per second) between nodes, A_within and w_within those within a node:

        (2 (N - 1) A_between + 2 (p - N) A_within + 2 ((p - 1) / p) n / w) (1 + v m_N)

    - n: bytes to reduce.
    - w: bandwidth of the ring. On one node, w is w_within. On two nodes, w is the smaller of w_within and
      w_between k^-x. On more nodes, it is the smaller of w_within and w_between k^-x e^h.
    - x, h and v: device exponent, peer gain and variation of links (see `Sharing`).
    - m_N: expected maximum of N standard normals (`expected_maximum`).

    The ring algorithm is that of Patarasuk and Yuan 2009. Limits of the formula:

    - It assumes that all ranks are equally fast, and that all nodes are of one kind.
    - Libraries that use trees for small messages are faster than the formula.

    Args:
        placements: N, p and k of each step.
        num_bytes: n, bytes to reduce.
        within: The link between two neighbors of the ring that are on the same node.
        between: The link between two neighbors of the ring that are on different nodes.
        sharing: x, h and v, which describe the links between nodes.
    """
    p, nodes = placements.num_ranks, placements.num_nodes
    outside = between.bytes_per_second * placements.most_on_a_node**-sharing.device_exponent
    outside = np.minimum(outside * np.exp(sharing.peer_gain * (nodes > 2)), within.bytes_per_second)
    bandwidth = np.where(nodes > 1, outside, within.bytes_per_second)
    hops = 2 * (nodes - 1) * between.latency_seconds + 2 * (p - nodes) * within.latency_seconds
    seconds = hops + 2 * (p - 1) / p * num_bytes / bandwidth
    return np.asarray(seconds * (1 + sharing.variation * expected_maximum(nodes)), dtype=float)
