"""Placements (devices used on each node), and the seconds of an all-reduce over them.

Fitted to all of Pollux's throughput table, one ring through all ranks leaves a mean misfit of 6.7-7.0% of the
step on at most 4 nodes, a hierarchy (a ring within the nodes, then one over them) 7.1-7.8%: so we use a ring.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from tuner.analytic.laws import Values, expected_maximum

Array = npt.NDArray[np.float64]


@dataclass(frozen=True, kw_only=True)
class Placements:
    """The properties of each placement that the seconds depend on.

    Args:
        num_nodes: Nodes with at least one rank, `(num,)`.
        num_ranks: Ranks over all nodes, `(num,)`.
        most_on_a_node: Ranks on the node that has most, `(num,)`.
    """

    num_nodes: Array
    num_ranks: Array
    most_on_a_node: Array

    def __post_init__(self) -> None:
        if not len(self.num_nodes) == len(self.num_ranks) == len(self.most_on_a_node):
            raise ValueError("num_nodes, num_ranks and most_on_a_node differ in length")
        whole = (self.num_nodes >= 1) & (self.num_ranks >= self.num_nodes)
        if not np.all(whole & (self.most_on_a_node * self.num_nodes >= self.num_ranks)):
            raise ValueError("every node of a placement holds from 1 to most_on_a_node ranks")

    def __len__(self) -> int:
        return len(self.num_nodes)

    def at(self, rows: npt.NDArray[np.intp] | npt.NDArray[np.bool_]) -> Placements:
        """Some of them."""
        return Placements(
            num_nodes=self.num_nodes[rows],
            num_ranks=self.num_ranks[rows],
            most_on_a_node=self.most_on_a_node[rows],
        )

    @property
    def slowest_rank(self) -> Array:
        """Expected maximum of as many standard normals as there are ranks, `(num,)`."""
        return expected_maximum(self.num_ranks)

    @property
    def slowest_node(self) -> Array:
        """Expected maximum of as many standard normals as there are nodes, `(num,)`."""
        return expected_maximum(self.num_nodes)


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


def placements_of(ranks_per_node: Sequence[Sequence[int]]) -> Placements:
    """Placements from the number of ranks on each node, as in `[(4, 4), (1, 2, 1)]`."""
    used = [[count for count in counts if count] for counts in ranks_per_node]
    return Placements(
        num_nodes=np.array([len(counts) for counts in used], dtype=float),
        num_ranks=np.array([sum(counts) for counts in used], dtype=float),
        most_on_a_node=np.array([max(counts, default=0) for counts in used], dtype=float),
    )


def spread_evenly(num_ranks: int, num_nodes: int) -> tuple[int, ...]:
    """Ranks on each node where they differ by at most one: `spread_evenly(7, 3)` is `(3, 2, 2)`."""
    if not 1 <= num_nodes <= num_ranks:
        raise ValueError(f"{num_ranks} ranks cannot use all of {num_nodes} nodes")
    each, remainder = divmod(num_ranks, num_nodes)
    return tuple(each + (node < remainder) for node in range(num_nodes))


def topology_ring_seconds(
    placements: Placements, num_bytes: float, *, within: Link, between: Link, sharing: Sharing
) -> Array:
    """Seconds of a ring all-reduce whose hops lie within nodes or between them, `(num,)`.

    On one node 2 (p - 1) A_within + 2 ((p - 1) / p) n / w_within; on N > 1 nodes, with k ranks at most,

        (2 (N - 1) A_between + 2 (p - N) A_within + 2 ((p - 1) / p) n / w) (1 + v m_N)

    with w the slower of w_within and w_between e^(peer gain, N > 2) k^(-exponent), and m_N Blom's expected
    maximum (the ring is Patarasuk and Yuan 2009; latencies hop by hop are exact only for alike ranks).
    It holds while the nodes are of one kind, and not where a library turns to trees for small messages.

    Args:
        placements: Of `num` placements.
        num_bytes: n, bytes that are reduced.
        within: Neighbors on one node.
        between: Neighbors on two nodes.
        sharing: How links between nodes differ from uniform ones.
    """
    p, nodes = placements.num_ranks, placements.num_nodes
    volume = 2 * (p - 1) / p * num_bytes
    alone = 2 * (p - 1) * within.latency_seconds + volume / within.bytes_per_second
    bandwidth = between.bytes_per_second * placements.most_on_a_node**-sharing.device_exponent
    bandwidth = np.minimum(bandwidth * np.exp(sharing.peer_gain * (nodes > 2)), within.bytes_per_second)
    hops = 2 * (nodes - 1) * between.latency_seconds + 2 * (p - nodes) * within.latency_seconds
    several = (hops + volume / bandwidth) * (1 + sharing.variation * placements.slowest_node)
    return np.asarray(np.where(nodes > 1, several, alone), dtype=float)
