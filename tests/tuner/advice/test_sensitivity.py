"""What would change the answer: told by the law, for clusters that are described."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import BASELINE, World, make_job
from tuner.advice.sensitivity import sensitivity
from tuner.domain.section import parse_duration
from tuner.search.beliefs import believe, candidates

MACHINE = {
    "fixed_seconds": "1ms",
    "seconds_per_sample": "1ms",
    "latency": "100us",
    "bandwidth": "1GB/s",
    "jitter": 0.05,
}


def reported(
    folder: Path, *, alike: bool = False, cheapest: bool = False, **machine: str
) -> tuple[Configuration, tuple[str, ...]]:
    """The configuration that is expected to cost least, and what would change that.

    Args:
        folder: Of the world.
        alike: Whether all are expected to cost nearly the same, whatever their medians.
        cheapest: Whether the goal is the lowest cost instead of the shortest time.
        machine: What differs of the machine.
    """
    price = {"dollars_per_node_hour": 1.0} if cheapest else {}
    job = make_job(
        cluster={"nodes": [1, 4, 64], "machine": {**MACHINE, **machine}, **price},
        goal={"minimize": "dollars" if cheapest else "seconds"},
        probe={"kind": "emulated"},
        space={"batch_size": [64, 256], "learning_rate": {"low": 0.01, "high": 1.0}},
    )
    world = World(folder, job=job, law=Law())
    world.ran(BASELINE, 20.0)
    rng = np.random.default_rng(0)
    state = world.state()
    beliefs = believe(state, candidates(state, rng), rng)
    if alike:
        beliefs = replace(beliefs, expected=1.0 + 1e-9 * beliefs.forecast.quantile(0.5))
    best = beliefs.configurations[int(np.argmin(beliefs.expected))]
    return best, sensitivity(state, beliefs, best)


def test_slower_links_would_send_it_to_fewer_nodes_and_faster_ones_to_more(tmp_path: Path) -> None:
    best, sentences = reported(tmp_path / "fast", latency="1ms")
    assert best.nodes == 4
    (turn,) = [words for words in sentences if words.startswith("With latency")]
    assert "times higher, all_reduce on 1 node " in turn
    best, sentences = reported(tmp_path / "slow", latency="5ms")
    assert best.nodes == 1
    (turn,) = [words for words in sentences if words.startswith("With latency")]
    assert "times lower, all_reduce on 4 nodes " in turn
    assert "would be faster" in turn


def test_nobody_is_said_to_be_ahead_whose_time_is_longer(
    tmp_path: Path,
) -> None:
    """Expectations may lie close together where medians do not: draws that hardly arrive lengthen some."""
    _, sentences = reported(tmp_path, alike=True, latency="1ms")
    stated = [re.search(r"faster: (.+) against (.+)\.$", sentence) for sentence in sentences]
    assert any(stated)
    for found in stated:
        if found is not None:
            other, own = (parse_duration(words.replace(" ", "")) for words in found.groups())
            assert other < own, found.string


def test_where_the_goal_is_the_cheapest_prices_are_compared(tmp_path: Path) -> None:
    best, sentences = reported(tmp_path, alike=True, cheapest=True, latency="1ms")
    turns = [re.search(r"on (\d+) nodes? .* cheaper: \$(.+) against \$(.+)\.$", words) for words in sentences]
    assert any(turns)
    for found in turns:
        if found is not None:
            assert int(found[1]) != best.nodes
            assert float(found[2]) < float(found[3])


def test_what_changes_nothing_is_said_together(tmp_path: Path) -> None:
    _, sentences = reported(tmp_path, latency="1ms", bandwidth="1000GB/s")
    (steady,) = [
        words for words in sentences if "neither the best strategy nor the best number of nodes" in words
    ]
    assert steady.startswith("Bandwidth")


def test_nothing_is_said_of_a_cluster_that_was_measured(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(), law=Law())
    world.ran(BASELINE, 20.0)
    rng = np.random.default_rng(0)
    state = world.state()
    beliefs = believe(state, candidates(state, rng), rng)
    assert sensitivity(state, beliefs, BASELINE) == ()
