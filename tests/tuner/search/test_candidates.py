from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from search_spaces import STRATEGIES, Configuration
from tests.tuner.search.world import World, make_cluster, make_job
from tuner.search.beliefs import candidates, distinct, weighed_levels

ALL = list(STRATEGIES)


def levels(strategies: list[str], nodes: list[int], **space: object) -> list[Configuration]:
    job = make_job(cluster={"nodes": nodes}, space={"strategy": strategies, **space})
    return weighed_levels(job.search_space(), make_cluster(job), np.random.default_rng(0))


def test_on_one_rank_only_all_reduce_and_an_outer_step_are_weighed() -> None:
    assert {c.strategy for c in levels(ALL, [1])} == {"all_reduce", "diloco"}


def test_on_one_rank_the_first_strategy_stands_for_all_where_there_is_no_all_reduce() -> None:
    found = levels(["gossip_pull", "local_sgd"], [1])
    assert {c.strategy for c in found} == {"gossip_pull"}
    assert len(found) == len({c.without("tau") for c in found})


def test_with_several_devices_a_node_nothing_is_left_out() -> None:
    job = make_job(cluster={"nodes": [1], "devices_per_node": 2}, space={"strategy": ALL})
    space = job.search_space()
    assert distinct(space.candidates(), make_cluster(job)) == space.candidates()


def test_every_strategy_on_every_number_of_nodes_keeps_a_fair_part() -> None:
    found = levels(ALL, [2, 4, 8])
    assert len(found) == 800
    shares = Counter((c.strategy, c.nodes) for c in found)
    assert len(shares) == len(ALL) * 3
    assert max(shares.values()) - min(shares.values()) <= 1


def test_what_a_small_group_cannot_fill_goes_to_the_others() -> None:
    """One rank has all-reduce alone: its 175 levels and two fair parts of the rest."""
    found = levels(["all_reduce", "gossip_pull"], [1, 8])
    shares = Counter((c.strategy, c.nodes) for c in found)
    assert set(shares) == {("all_reduce", 1), ("all_reduce", 8), ("gossip_pull", 8)}
    assert len(found) == sum(shares.values()) == min(800, 3 * 175 + 175)


def test_levels_keep_the_space_s_order_and_are_feasible() -> None:
    job = make_job(cluster={"nodes": [2, 4, 8]}, space={"strategy": ALL})
    space = job.search_space()
    found = weighed_levels(space, make_cluster(job), np.random.default_rng(1))
    places = {level: place for place, level in enumerate(space.candidates())}
    assert [places[c] for c in found] == sorted(places[c] for c in found)


@pytest.mark.parametrize(("strategy", "transferred"), [("all_reduce", True), ("gossip_pull", False)])
def test_a_started_run_is_resumed_on_other_nodes_only_where_its_curve_holds_there(
    tmp_path: Path, strategy: str, transferred: bool
) -> None:
    """A rate between the levels, so that only the run itself brings it in."""
    job = make_job(space={"strategy": ["all_reduce", "gossip_pull"]})
    world = World(tmp_path, job=job)
    knobs = {"tau": 1} if strategy == "gossip_pull" else {}
    what = Configuration(nodes=4, batch_size=64, learning_rate=0.0123, strategy=strategy, **knobs)
    world.ran(what, 3.0)
    found = candidates(world.state(), np.random.default_rng(0))
    nodes = {c.nodes for c in found if c.learning_rate == 0.0123}
    assert nodes == ({1, 2, 4} if transferred else {4})
