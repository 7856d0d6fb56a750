from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces import STRATEGIES, Configuration, with_knobs
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.cluster import Cluster
from tuner.domain.measurement import Purpose
from tuner.search.timings import timing_key

CLUSTER = Cluster(node_counts=(1, 2, 4))


def asked(strategy: str, nodes: int = 4, **knobs: float) -> Configuration:
    return with_knobs(configuration(nodes).replaced(strategy=strategy, **knobs))


def test_a_timing_of_one_strategy_or_tau_is_none_of_another() -> None:
    keys = {
        timing_key(what, CLUSTER)
        for what in (
            asked("all_reduce"),
            asked("gossip_pull", tau=1),
            asked("gossip_pull", tau=4),
            asked("gossip_push", tau=4),
            asked("gossip_push", tau=4, nodes=2),
        )
    }
    assert len(keys) == 5


def test_rates_and_knobs_that_do_not_change_a_step_share_its_timing() -> None:
    here = asked("elastic_averaging", tau=10, beta=0.8)
    assert timing_key(here, CLUSTER) == timing_key(here.replaced(beta=0.5, learning_rate=1.0), CLUSTER)


@pytest.mark.parametrize("strategy", [name for name in STRATEGIES if name != "diloco"])
def test_on_one_rank_a_timing_of_any_strategy_is_one_of_all_reduce(strategy: str) -> None:
    assert timing_key(asked(strategy, nodes=1), CLUSTER) == timing_key(asked("all_reduce", nodes=1), CLUSTER)


def test_a_node_of_several_devices_is_not_alone() -> None:
    wide = Cluster(node_counts=(1,), devices_per_node=4)
    assert timing_key(asked("gossip_pull", 1), wide) != timing_key(asked("all_reduce", 1), wide)


def test_a_study_knows_what_of_which_strategy_was_timed(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(space={"strategy": ["all_reduce", "gossip_pull"]}))
    world.ran(asked("gossip_pull", tau=4), 1.0, purpose=Purpose.TIMING)
    assert world.state().timed() == {timing_key(asked("gossip_pull", tau=4), world.cluster)}
