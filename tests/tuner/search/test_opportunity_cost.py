"""What looks cost beside what is under way, and what is left for them to resolve."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import Purpose
from tuner.search.beliefs import believe
from tuner.search.believer import Believer
from tuner.search.capacity import Capacity, UnderWay
from tuner.search.opportunity_cost import OpportunityCost
from tuner.search.state import SearchState
from tuner.search.stopping import limit_reached, may_start, seconds_left

ONE, TWO, FOUR = configuration(1, 64, 0.08), configuration(2, 128, 0.08), configuration(4, 256, 0.08)


def running(
    what: Configuration, *, elapsed: float = 0.0, expected: float = 0.0, probe_id: int = 9
) -> UnderWay:
    return UnderWay(
        probe_id=probe_id,
        configuration=what,
        purpose=Purpose.STATISTICS,
        num_nodes=what.nodes,
        elapsed_seconds=elapsed,
        expected_seconds=expected,
    )


def state_of(
    folder: Path, *under_way: UnderWay, slots: int = 3, nodes: int = 4, **sections: Any
) -> SearchState:
    world = World(folder, job=make_job(**sections))
    capacity = Capacity(num_slots=slots, num_nodes=nodes, under_way=under_way, elapsed_seconds=7.0)
    return replace(world.state(), capacity=capacity)


def test_a_probe_on_nodes_that_would_be_idle_costs_no_time(tmp_path: Path) -> None:
    leads = OpportunityCost(state=state_of(tmp_path, running(TWO)), leader=TWO)
    assert leads.leader_is_under_way
    assert leads.cost(ONE, 10.0, 1.0) == 0.0
    fits = OpportunityCost(state=state_of(tmp_path), leader=TWO)
    assert fits.leader_fits
    assert fits.cost(ONE, 10.0, 1.0) == 0.0


def test_a_probe_that_keeps_the_leader_from_its_nodes_costs_its_time(tmp_path: Path) -> None:
    opportunity = OpportunityCost(state=state_of(tmp_path), leader=FOUR)
    assert opportunity.cost(ONE, 10.0, 1.0) == 10.0
    # With a single slot it keeps the leader from that, however many nodes there are.
    assert OpportunityCost(state=state_of(tmp_path, slots=1), leader=ONE).cost(TWO, 10.0, 1.0) == 10.0


def test_a_probe_costs_what_it_takes_longer_than_what_the_leader_waits_for(tmp_path: Path) -> None:
    state = state_of(tmp_path, running(TWO, elapsed=2.0, expected=8.0))
    opportunity = OpportunityCost(state=state, leader=FOUR)
    assert not opportunity.leader_fits
    assert opportunity.cost(ONE, 5.0, 1.0) == 0.0
    assert opportunity.cost(ONE, 9.0, 1.0) == pytest.approx(3.0)
    # Without a leader the search's end is kept off as much.
    assert OpportunityCost(state=state, leader=None).cost(ONE, 9.0, 1.0) == pytest.approx(3.0)


def test_dollars_always_count(tmp_path: Path) -> None:
    state = state_of(
        tmp_path,
        running(TWO),
        goal={"minimize": "dollars"},
        cluster={"nodes": [1, 2, 4], "dollars_per_node_hour": 3.6},
    )
    assert OpportunityCost(state=state, leader=TWO).cost(ONE, 10.0, 0.001) == pytest.approx(0.01)


def test_the_statistics_of_a_run_that_is_under_way_are_so_on_any_nodes(tmp_path: Path) -> None:
    opportunity = OpportunityCost(state=state_of(tmp_path, running(ONE)), leader=None)
    assert opportunity.is_under_way(ONE)
    assert opportunity.is_under_way(ONE.replaced(nodes=2))
    assert not opportunity.is_under_way(TWO)
    assert opportunity.state.fits(TWO)
    assert not opportunity.state.fits(FOUR)


def test_limits_count_time_that_passes_and_dollars_that_will_be_due(tmp_path: Path) -> None:
    priced = {"nodes": [1, 2, 4], "dollars_per_node_hour": 3600.0}
    under_way = running(TWO, elapsed=4.0, expected=10.0)
    state = state_of(
        tmp_path, under_way, cluster=priced, budget={"time": "10s", "dollars": 50.0, "probes": 1}
    )
    assert state.elapsed_seconds == 7.0
    assert seconds_left(state, ONE) == pytest.approx(3.0)
    assert state.dollars(to_end=True) - state.spent.dollars == pytest.approx(20.0)
    assert state.dollars() - state.spent.dollars == pytest.approx(8.0)
    assert seconds_left(
        replace(state, capacity=replace(state.capacity, elapsed_seconds=0.0)), FOUR
    ) == pytest.approx(7.5)
    assert limit_reached(state) is None
    assert may_start(state)
    late = replace(state, capacity=replace(state.capacity, elapsed_seconds=10.0))
    stop = limit_reached(late)
    assert stop is not None
    assert stop.reason == "the time budget of 10 s is used up"


def test_what_is_under_way_leaves_less_to_learn_of_its_like(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.ran(ONE, 4.0)
    near, far = configuration(1, 256, 0.09), configuration(1, 16, 0.0005)
    under_way = configuration(1, 256, 0.08)
    candidates = [ONE, under_way, near, far]
    beliefs = believe(world.state(), candidates, np.random.default_rng(0))
    state = replace(world.state(), capacity=Capacity(num_slots=2, under_way=(running(under_way),)))
    before = beliefs.prospects.variance_log
    left = Believer().prospects(state, beliefs, ONE).variance_log / before
    assert left[1] < 0.5
    assert 0.0 <= left[2] < left[3] <= 1.0
    assert Believer().prospects(world.state(), beliefs, ONE) is beliefs.prospects
    # The incumbent's own slice is held against none.
    own = replace(state, capacity=Capacity(num_slots=2, under_way=(running(ONE),)))
    assert Believer().prospects(own, beliefs, ONE) is beliefs.prospects
