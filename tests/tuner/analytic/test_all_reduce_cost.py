"""Placements, and an all-reduce over them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.step_placements import placements_of, spread_evenly
from tuner.analytic.all_reduce_cost import (
    Link,
    Sharing,
    ring_all_reduce_seconds,
    topology_ring_seconds,
)

WITHIN = Link(latency_seconds=1e-5, bytes_per_second=6e9)
BETWEEN = Link(latency_seconds=5e-4, bytes_per_second=6e8)

counts = st.lists(st.integers(1, 8), min_size=1, max_size=20)
shares = st.builds(
    Sharing,
    device_exponent=st.floats(0.0, 0.5),
    peer_gain=st.floats(0.0, 0.5),
    variation=st.floats(0.0, 0.5),
)


def ring(
    counts: list[tuple[int, ...]], num_bytes: float = 1e8, sharing: Sharing | None = None
) -> list[float]:
    found = topology_ring_seconds(
        placements_of(counts), num_bytes, within=WITHIN, between=BETWEEN, sharing=sharing or Sharing()
    )
    return [float(seconds) for seconds in found]


def test_a_placement_knows_its_nodes_ranks_and_fullest_node() -> None:
    found = placements_of([(1, 4, 2), (0, 3)])
    assert found.num_nodes.tolist() == [3, 1]
    assert found.num_ranks.tolist() == [7, 3]
    assert found.most_on_a_node.tolist() == [4, 3]


@given(num_nodes=st.integers(1, 40), more=st.integers(0, 200))
def test_ranks_spread_evenly_use_every_node_and_differ_by_at_most_one(num_nodes: int, more: int) -> None:
    found = spread_evenly(num_nodes + more, num_nodes)
    assert sum(found) == num_nodes + more
    assert len(found) == num_nodes
    assert max(found) - min(found) <= 1
    assert min(found) >= 1


def test_fewer_ranks_than_nodes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 ranks cannot use all of 4 nodes"):
        spread_evenly(3, 4)


def test_a_placement_without_a_rank_is_refused() -> None:
    with pytest.raises(ValueError, match="a placement has no rank"):
        placements_of([(0, 0)])


def test_one_rank_exchanges_nothing() -> None:
    assert ring([(1,)]) == [0.0]


@given(num_nodes=st.integers(2, 64))
def test_one_rank_a_node_is_the_plain_ring(num_nodes: int) -> None:
    plain = ring_all_reduce_seconds(
        np.array([num_nodes]),
        1e8,
        latency=BETWEEN.latency_seconds,
        bytes_per_second=BETWEEN.bytes_per_second,
    )
    assert ring([(1,) * num_nodes]) == pytest.approx(plain, rel=1e-12)


@given(placement=counts, sharing=shares, factor=st.floats(1.0, 10.0))
def test_more_bytes_never_take_less(placement: list[int], sharing: Sharing, factor: float) -> None:
    small, large = (ring([tuple(placement)], num_bytes, sharing)[0] for num_bytes in (1e7, 1e7 * factor))
    assert large >= small


@given(placement=counts.filter(lambda found: len(found) > 2), sharing=shares)
def test_another_node_never_makes_the_exchange_faster(placement: list[int], sharing: Sharing) -> None:
    fewer, more = ring([tuple(placement), (*placement, 1)], sharing=sharing)
    assert more > fewer


def test_one_node_is_faster_than_the_same_ranks_on_several() -> None:
    one, two, four = ring([(4,), (2, 2), (1, 1, 1, 1)])
    assert one < two < four


def test_a_gain_by_several_peers_leaves_two_nodes_alone() -> None:
    sharing = Sharing(peer_gain=0.3)
    assert ring([(2, 2)], sharing=sharing) == ring([(2, 2)])
    assert ring([(2, 2, 2)], sharing=sharing)[0] < ring([(2, 2, 2)])[0]
