"""A warning if the recommended training is very probably better on other nodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration, make_job
from tuner.advice.other_nodes import better_on_other_nodes
from tuner.domain.measurement import Purpose
from tuner.search.believer import Believer


def warned(folder: Path, reached: Configuration, law: Law, **goal: Any) -> tuple[str, ...]:
    """Warnings after one run that reached the target, and short timings on the other numbers of nodes."""
    job = make_job(cluster={"dollars_per_node_hour": 3.6}, goal={"trainings": 20, **goal})
    world = World(folder, job=job, law=law)
    world.ran(reached, 1e6)
    for nodes in (1, 2, 4):
        if nodes != reached.nodes:
            world.ran(reached.replaced(nodes=nodes), 5.0, purpose=Purpose.TIMING)
    state = world.state()
    assert any(run.arrived for run in state.runs.values())
    beliefs = Believer().believe(state)
    assert beliefs is not None
    return better_on_other_nodes(state, beliefs, reached)


def test_fewer_nodes_are_named_where_the_lowest_price_is_the_goal(tmp_path: Path) -> None:
    reached = configuration(nodes=4, batch_size=64, learning_rate=0.1)
    slow_links = Law(cores=8, hop_seconds=0.02)
    (words,) = warned(tmp_path / "a", reached, slow_links, minimize="dollars")
    assert words.startswith("1 node, batch 64, learning rate 0.1, all_reduce is very probably cheaper")
    assert "`paceline train` measures it" in words
    # The run on one node is the cheapest, and one training is not worth another one.
    assert not warned(tmp_path / "b", reached.replaced(nodes=1), slow_links, minimize="dollars")
    assert not warned(tmp_path / "c", reached, slow_links, minimize="dollars", trainings=1)


def test_the_soonest_number_of_nodes_has_no_warning(tmp_path: Path) -> None:
    reached = configuration(nodes=4, batch_size=512, learning_rate=0.1)
    assert not warned(tmp_path / "a", reached, Law(cores=8))
    (words,) = warned(tmp_path / "b", reached.replaced(nodes=1), Law(cores=8))
    assert "is very probably sooner" in words
    assert words.startswith("4 nodes, batch 512")
