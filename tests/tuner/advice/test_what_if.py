"""What would change the answer, and the rest of the analysis, as the models predict it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import BASELINE, World, configuration, make_job
from tuner.advice.analysis import analysis
from tuner.advice.conditions import Base, Condition, Refit, widened
from tuner.domain.analysis import Analysis, WhatIf
from tuner.domain.estimate import Estimate
from tuner.search.believer import Believer

MACHINE = {
    "fixed_seconds": "1ms",
    "seconds_per_sample": "1ms",
    "latency": "1ms",
    "bandwidth": "1GB/s",
    "jitter": 0.05,
}


def analysed(
    folder: Path, *, goal: dict[str, Any] | None = None, **cluster: Any
) -> tuple[Configuration, Analysis]:
    """A short study on one, two and four nodes, and its analysis."""
    world = World(folder, job=make_job(cluster=cluster, goal=goal or {}), law=Law())
    world.ran(BASELINE, 20.0)
    world.ran(configuration(nodes=2, batch_size=128, learning_rate=0.1), 60.0)
    world.ran(configuration(nodes=4, batch_size=256, learning_rate=0.1), 20.0)
    return _analysis(world)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> tuple[Configuration, Analysis]:
    """The recommendation and the analysis of a job without prices."""
    return analysed(tmp_path_factory.mktemp("study"))


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> tuple[Configuration, Analysis]:
    """The same for a job that minimizes dollars within a deadline."""
    goal = {"minimize": "dollars", "deadline": "1h"}
    return analysed(tmp_path_factory.mktemp("priced"), dollars_per_node_hour=3.6, goal=goal)


def emulated(
    folder: Path, nodes: tuple[int, ...] = (1, 4, 64), **machine: Any
) -> tuple[Configuration, Analysis]:
    job = make_job(
        cluster={"nodes": list(nodes), "machine": {**MACHINE, **machine}},
        probe={"kind": "emulated"},
        space={"batch_size": [64, 256], "learning_rate": {"low": 0.01, "high": 1.0}},
    )
    world = World(folder, job=job, law=Law())
    world.ran(BASELINE, 20.0)
    return _analysis(world)


def dollars_world(folder: Path) -> World:
    """A short study that minimizes dollars, in which few nodes are cheaper than many."""
    job = make_job(cluster={"dollars_per_node_hour": 3.6}, goal={"minimize": "dollars"})
    world = World(folder, job=job, law=Law())
    world.ran(BASELINE, 20.0)
    world.ran(configuration(nodes=4, batch_size=256, learning_rate=0.1), 20.0)
    return world


def _analysis(world: World, *, refits: bool = True) -> tuple[Configuration, Analysis]:
    state, believer = world.state(), Believer()
    beliefs = believer.believe(state)
    assert beliefs is not None
    best = beliefs.configurations[int(np.argmin(beliefs.expected))]
    refit: Refit | None = believer.refit if refits else None
    return best, analysis(state, beliefs, best, refit)


def rows(found: Analysis, topic: str) -> list[WhatIf]:
    return [row for row in found.what_if if row.topic == topic]


def nodes_of(row: WhatIf) -> int:
    assert row.configuration is not None
    return row.configuration.nodes


def test_half_of_the_nodes_is_answered_with_at_most_half(tmp_path: Path) -> None:
    best, found = emulated(tmp_path, nodes=(1, 4))
    assert best.nodes == 4
    half, quarter, twice = rows(found, "nodes")
    assert half.change == "only 2 of the 4 nodes are free (half)"
    assert nodes_of(half) == nodes_of(quarter) == 1
    assert not half.is_same
    assert "the recommended configuration needs more nodes" in half.note
    assert twice.change.startswith("8 nodes are free")
    assert half.seconds is not None
    assert half.seconds.lower < half.seconds.median < half.seconds.upper


def test_without_the_recommendation_the_cheapest_of_the_others_is_best(tmp_path: Path) -> None:
    """Candidates that the recommendation was preferred to are not all equally good without it."""
    state, believer = dollars_world(tmp_path).state(), Believer()
    beliefs = believer.believe(state)
    assert beliefs is not None
    expected, candidates = beliefs.expected, beliefs.configurations
    choice = max((c for c in candidates if c.nodes == 4), key=lambda c: expected[candidates.index(c)])
    small = [c for c in candidates if c.nodes <= 2]
    cheapest = min(small, key=lambda c: expected[candidates.index(c)])
    assert sum(expected[candidates.index(c)] < expected[candidates.index(choice)] for c in small) > 1
    half = rows(analysis(state, beliefs, choice, None), "nodes")[0]
    assert half.configuration == cheapest


def test_more_free_nodes_change_the_answer_only_to_one_that_needs_them(tmp_path: Path) -> None:
    state, believer = dollars_world(tmp_path).state(), Believer()
    beliefs = believer.believe(state)
    assert beliefs is not None
    choice = configuration(nodes=4, batch_size=256, learning_rate=0.1)
    assert beliefs.expected[beliefs.configurations.index(choice)] > beliefs.expected.min()
    twice = rows(analysis(state, beliefs, choice, believer.refit), "nodes")[-1]
    assert twice.change == "8 nodes are free (twice as many)"
    assert twice.is_same or nodes_of(twice) == 8
    # The note holds also if the answer stays the same, on nodes that the job has.
    assert "8 nodes are beyond those of the job" in twice.note


def test_an_answer_that_fits_stays_the_same(tmp_path: Path) -> None:
    best, found = emulated(tmp_path, latency="5ms")
    assert best.nodes == 1
    half = rows(found, "nodes")[0]
    assert half.is_same
    assert half.note == "same"
    assert half.configuration == best


def test_links_send_the_answer_to_fewer_and_to_more_nodes(tmp_path: Path) -> None:
    best, found = emulated(tmp_path)
    assert best.nodes == 4
    slower = rows(found, "links")[0]
    assert nodes_of(slower) == 1
    assert "slower" in slower.change
    best, found = emulated(tmp_path / "slow", latency="5ms")
    assert best.nodes == 1
    faster = rows(found, "links")[1]
    assert nodes_of(faster) == 4
    assert "faster" in faster.change
    assert "communication would be" in faster.note


def test_links_that_change_nothing_say_so(tmp_path: Path) -> None:
    _, found = emulated(tmp_path, latency="1us", bandwidth="1000GB/s")
    _, faster = rows(found, "links")
    assert faster.is_same
    assert "up to 10 times faster" in faster.change


def test_links_that_no_step_shows_are_not_measured(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(), law=Law())
    world.ran(BASELINE, 20.0)
    _, found = _analysis(world, refits=False)
    (links,) = rows(found, "links")
    assert links.configuration is None
    assert links.note == "not measured: no step on several ranks was timed"
    # Compute takes almost all of these steps, so they do not show the time of communication.
    world.ran(BASELINE.replaced(nodes=2), 20.0)
    _, found = _analysis(world, refits=False)
    (links,) = rows(found, "links")
    assert links.note == "not measured: the timed steps do not show how long communication takes"


def test_one_node_has_no_links_and_no_half(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(cluster={"nodes": [1]}), law=Law())
    world.ran(BASELINE, 20.0)
    _, found = _analysis(world)
    assert not rows(found, "links")
    assert not rows(found, "nodes")


def test_without_prices_nothing_is_in_dollars(study: tuple[Configuration, Analysis]) -> None:
    _, found = study
    assert not rows(found, "price")
    assert all(row.dollars is None and "$" not in row.note + row.change for row in found.what_if)
    assert all(item.dollars is None and item.node_hours.median > 0 for item in found.trade_offs)
    (goal,) = rows(found, "goal")
    assert "node hours" in goal.change


def test_prices_and_limits_of_dollars_are_asked_for(priced: tuple[Configuration, Analysis]) -> None:
    _, found = priced
    (price,) = rows(found, "price")
    assert price.is_same
    half, twice = rows(found, "deadline")
    assert "30m 00s (half the limit of the job)" in half.change
    assert "2h 00m" in twice.change
    (cost,) = rows(found, "dollars")
    assert cost.change.startswith("a training may cost at most $")
    assert price.dollars is not None
    assert price.seconds is not None
    assert price.dollars.median == pytest.approx(price.seconds.median * nodes_of(price) * 0.002)


def test_a_nearer_target_is_sooner(study: tuple[Configuration, Analysis]) -> None:
    _, found = study
    nearer, farther = rows(found, "target")
    assert nearer.change == "the target is 0.82 (nearer)"
    assert farther.change == "the target is 0.88 (farther)"
    assert nearer.seconds is not None
    assert farther.seconds is not None
    assert nearer.seconds.median < farther.seconds.median


def test_a_target_far_beyond_the_curves_is_not_measured(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(), law=Law())
    world.ran(BASELINE, 5.0)
    _, found = _analysis(world)
    farther = rows(found, "target")[-1]
    assert farther.configuration is None
    assert farther.note.startswith("not measured: no curve is beyond")


def test_trade_offs_get_slower_and_cheaper(priced: tuple[Configuration, Analysis]) -> None:
    best, found = priced
    seconds = [item.seconds.median for item in found.trade_offs]
    dollars = [item.dollars.median for item in found.trade_offs if item.dollars is not None]
    assert seconds == sorted(seconds)
    assert dollars == sorted(dollars, reverse=True)
    assert [item.configuration for item in found.trade_offs if item.is_choice] == [best]


def test_parts_of_a_step_add_up(study: tuple[Configuration, Analysis]) -> None:
    _, found = study
    assert [item.configuration.nodes for item in found.step_parts] == [1, 2, 4]
    for item in found.step_parts:
        parts = item.compute_seconds + item.input_seconds + item.waiting_seconds + item.communication_seconds
        assert parts == pytest.approx(item.seconds.median)
    assert found.step_parts[0].communication_seconds == pytest.approx(0.0, abs=1e-9)
    assert found.step_parts[2].communication_seconds > 0


def test_forecasts_start_at_the_curve_and_end_at_the_target(study: tuple[Configuration, Analysis]) -> None:
    _, found = study
    forecasts = [item for item in found.curve_forecasts if item.points]
    assert forecasts
    for item in forecasts:
        assert item.result == "open"
        assert item.points[-1].value == pytest.approx(0.85)
        assert item.points[0].samples.median == pytest.approx(item.samples_observed)
        medians = [point.samples.median for point in item.points]
        assert medians == sorted(medians)
        assert all(p.samples.lower <= p.samples.median <= p.samples.upper for p in item.points)


def test_batches_and_rates_are_those_of_the_space(study: tuple[Configuration, Analysis]) -> None:
    _, found = study
    assert [item.configuration.batch_size for item in found.samples_by_batch] == [
        2**power for power in range(4, 11)
    ]
    assert len({cell.batch_size for cell in found.learning_rates if cell.is_best}) == 7
    assert all(0.05 <= cell.probability_of_reaching <= 1.0 for cell in found.learning_rates)
    assert {(run.batch_size, run.result) for run in found.rate_runs} >= {(64, "open")}


def test_an_unsure_configuration_says_so(tmp_path: Path) -> None:
    world = World(tmp_path, job=make_job(cluster={"nodes": [1, 4]}), law=Law())
    world.ran(BASELINE, 20.0)
    state = world.state()
    beliefs = Believer().believe(state)
    assert beliefs is not None
    place = beliefs.configurations.index(configuration(nodes=4, batch_size=256, learning_rate=0.1))
    never = beliefs.forecast.never.copy()
    never[:, place] = np.arange(len(never)) % 2 == 0
    unsure = replace(beliefs, forecast=replace(beliefs.forecast, never=never))
    base = Base(state=state, beliefs=unsure, choice=BASELINE)
    condition = Condition(topic="nodes", change="", state=state, beliefs=unsure)
    note = condition.row(base, place, "more nodes").note
    assert note == "more nodes; the best one was not trained; its chance of reaching the target 50%"


def test_an_interval_with_an_error_is_wider() -> None:
    before = Estimate(lower=8.0, median=10.0, upper=12.0)
    after = widened(before, 0.2)
    assert after.lower < before.lower
    assert after.upper > before.upper
    open_ended = replace(before, upper=math.inf)
    assert widened(open_ended, 0.2).upper == math.inf
