from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.search.synthetic import Law, random_law
from tests.tuner.search.world import BASELINE, World, configuration, make_job
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.search.acquisition import Acquisition
from tuner.search.beliefs import believe
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Continue, Start, Stop, StopKind

SMALL_SPACE = {
    "batch_size": [32, 128, 512],
    "learning_rate": {"low": 1e-3, "high": 1.0, "levels_per_decade": 3},
}
SLOW_LAW = Law(samples=8e4, seconds_per_sample=1e-3)


def small_world(folder: Path, law: Law = SLOW_LAW, **sections: Any) -> World:
    settings: dict[str, Any] = {"cluster": {"nodes": [1, 2]}, "space": SMALL_SPACE, "budget": {"time": "20m"}}
    return World(folder, job=make_job(**{**settings, **sections}), law=replace(law))


def decided(world: World) -> Start:
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Start)
    return action


def stopped(world: World) -> Stop:
    return world.search(ModelPolicy()).run().stop


def fault(purpose: Purpose = Purpose.STATISTICS, rate: float = 0.03) -> Measurement:
    return Measurement(
        configuration=configuration(1, 128, rate), purpose=purpose, outcome=Outcome.FAILED, error="rank 0: no"
    )


def test_the_present_settings_come_first(tmp_path: Path) -> None:
    first = decided(small_world(tmp_path))
    assert first.configuration == BASELINE
    assert first.reason == "the user's present settings are tried first"


def test_present_settings_whose_slice_was_interrupted_come_first_again(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    interrupted = Measurement(
        configuration=BASELINE,
        purpose=Purpose.STATISTICS,
        outcome=Outcome.PAUSED,
        charged_seconds=3.0,
        error="the slice was interrupted",
    )
    world.keep(interrupted)
    assert decided(world).configuration == BASELINE
    # As after a change of the script, when no probe of the older one continues.
    world.ledger.end_probe(world.probes()[0].probe_id, Outcome.STOPPED, "the job changed")
    assert decided(world).configuration == BASELINE
    # One that ran as far as it was to, without a report, is not repeated.
    world.keep(replace(interrupted, error=None))
    assert decided(world).configuration != BASELINE


def test_present_settings_outside_the_space_come_first_all_the_same(tmp_path: Path) -> None:
    world = small_world(tmp_path, baseline={"nodes": 2, "batch_size": 48, "learning_rate": 2.5})
    assert decided(world).configuration == configuration(2, 48, 2.5)


def test_present_settings_on_nodes_that_may_not_be_chosen_are_not_probed(tmp_path: Path) -> None:
    world = small_world(tmp_path, baseline={"nodes": 8, "batch_size": 64, "learning_rate": 0.01})
    assert decided(world).configuration.nodes == 1


def test_without_present_settings_the_first_probe_is_at_the_middle(tmp_path: Path) -> None:
    first = decided(small_world(tmp_path, baseline=None))
    assert (first.configuration.nodes, first.configuration.batch_size) == (1, 128)
    assert 0.01 < first.configuration.learning_rate < 0.1


def test_the_first_probe_reaches_the_second_scoring(tmp_path: Path) -> None:
    world = small_world(tmp_path, probe={"first_score_samples": 1000, "score_growth": 1.5})
    assert decided(world).until.samples == 1500


@pytest.mark.parametrize(("budget", "seconds"), [({}, 600.0), ({"time": "10m"}, 60.0)])
def test_the_first_probe_is_no_more_than_a_tenth_of_the_budget(
    tmp_path: Path, budget: dict[str, Any], seconds: float
) -> None:
    world = World(tmp_path, job=make_job(budget=budget))
    assert decided(world).until.training_seconds == pytest.approx(seconds)


def test_slices_are_as_long_as_the_job_says(tmp_path: Path) -> None:
    world = small_world(tmp_path, probe={"slice_seconds": 7})
    stopped(world)
    for probe in world.probes():
        lengths = np.diff([0.0, *(m.training_seconds for m in probe.slices)])
        assert probe.purpose is Purpose.TIMING or lengths.max() == pytest.approx(7.0, abs=0.7)


def test_the_same_state_gives_the_same_decision(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.ran(BASELINE, 6.0)
    world.ran(configuration(1, 128, 0.05), 5.0)
    first, again = (ModelPolicy(Believer(seed=4)).decide(world.state()) for _ in range(2))
    assert first.action == again.action
    assert first.beliefs is not None
    assert again.beliefs is not None
    np.testing.assert_array_equal(first.beliefs.forecast.total, again.beliefs.forecast.total)


@pytest.mark.parametrize("has_run", [True, False])
def test_only_what_has_run_is_called_the_best_known(tmp_path: Path, has_run: bool) -> None:
    world = small_world(tmp_path)
    world.ran(BASELINE, 6.0)
    state, wanted = world.state(), BASELINE if has_run else configuration(1, 128, 0.05)
    beliefs = believe(state, [wanted], np.random.default_rng(0))
    action = Acquisition(state, beliefs, beliefs.prospects).go_on()
    if has_run:
        assert isinstance(action, Continue)
        assert action.reason == "the best so far, trained further to confirm it"
    else:
        assert isinstance(action, Start)
        assert action.configuration == wanted
        assert action.reason == "expected to be the best, not trained yet"


def test_what_does_not_fit_a_rank_is_probed_no_more(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, memory_samples=128))
    stop = stopped(world)
    assert stop.kind is StopKind.ARRIVED
    too_large = [-(-c.batch_size // c.nodes) for c, _ in world.prober.started if not world.law.fits(c)]
    # Each probe that ran out of memory had a smaller share than the one before.
    assert too_large == sorted(set(too_large), reverse=True)


def test_a_rate_that_diverged_is_not_tried_again_nor_larger_ones_preferred(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, edge_rate=0.08))
    world.ran(configuration(1, 32, 0.1), 5.0)
    world.ran(configuration(1, 128, 0.1), 5.0)
    before = len(world.prober.started)
    assert stopped(world).kind is StopKind.ARRIVED
    trained = [c for c, purpose in world.prober.started[before:] if purpose is not Purpose.TIMING]
    assert configuration(1, 32, 0.1) not in trained
    assert configuration(1, 128, 0.1) not in trained
    beyond = [c for c in trained if c.learning_rate >= 0.1]
    assert len(beyond) <= 1


def test_a_used_up_time_budget_ends_the_search(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, samples=1e7), budget={"time": "30s"})
    stop = stopped(world)
    assert stop.kind is StopKind.BUDGET
    assert stop.reason == "the time budget of 30 s is used up"
    # The last slice is cut to what was left; its start-up and scoring come on top.
    assert 30.0 <= world.state().spent.seconds < 36.0


def test_a_used_up_dollar_budget_ends_the_search(tmp_path: Path) -> None:
    world = small_world(
        tmp_path,
        replace(SLOW_LAW, samples=1e7),
        cluster={"nodes": [1, 2], "dollars_per_node_hour": 36.0},
        budget={"dollars": 0.5},
    )
    stop = stopped(world)
    assert (stop.kind, stop.reason) == (StopKind.BUDGET, "the budget of $0.5 is used up")
    assert 0.5 <= world.state().spent.dollars < 0.6


def test_a_budget_of_probes_is_never_exceeded_and_the_started_run_still_arrives(tmp_path: Path) -> None:
    world = small_world(tmp_path, budget={"probes": 2})
    assert stopped(world).kind is StopKind.ARRIVED
    assert len(world.probes()) <= 2


def test_a_budget_of_probes_without_a_run_that_can_go_on_ends_the_search(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, edge_rate=1e-9), budget={"probes": 2})
    assert stopped(world).kind in (StopKind.BUDGET, StopKind.UNREACHABLE)
    assert len(world.probes()) <= 2


def test_three_faults_in_a_row_end_the_search(tmp_path: Path) -> None:
    world, policy = small_world(tmp_path), ModelPolicy()
    for rate in (0.01, 0.02, 0.03):
        policy.decide(world.state())
        world.keep(fault(rate=rate))
    stop = policy.decide(world.state()).action
    assert stop == Stop(kind=StopKind.FAULTS, reason="3 of 3 ended probes failed")


def test_faults_between_good_probes_do_not_end_the_search(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    for rate in (0.01, 0.02):
        world.keep(fault(rate=rate))
        world.ran(configuration(1, 128, rate), 1.0, purpose=Purpose.TIMING)
    world.keep(fault(rate=0.05))
    assert isinstance(ModelPolicy().decide(world.state()).action, Start)


def test_half_of_many_probes_failing_ends_the_search(tmp_path: Path) -> None:
    world, policy = small_world(tmp_path), ModelPolicy()
    for rate in (0.01, 0.02, 0.03):
        policy.decide(world.state())
        world.ran(configuration(1, 128, rate), 1.0, purpose=Purpose.TIMING)
        world.keep(fault(rate=rate))
    stop = policy.decide(world.state()).action
    assert stop == Stop(kind=StopKind.FAULTS, reason="3 of 6 ended probes failed")


def test_faults_of_an_earlier_run_do_not_end_a_later_one(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    for rate in (0.01, 0.02, 0.03):
        world.keep(fault(rate=rate))
    assert isinstance(ModelPolicy().decide(world.state()).action, Start)


def test_a_target_above_every_curve_is_unreachable(tmp_path: Path) -> None:
    world = small_world(tmp_path, Law(samples=2e4), goal={"target": 0.99}, budget={"time": "2m"})
    stop = stopped(world)
    assert stop.kind in (StopKind.UNREACHABLE, StopKind.BUDGET)
    assert not any(run.arrived for run in world.state().runs.values())


def test_where_everything_breaks_down_nothing_is_reachable(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, edge_rate=1e-9), budget={})
    stop = stopped(world)
    assert stop.kind is StopKind.UNREACHABLE
    assert len(world.probes()) < 30


def test_a_deadline_no_configuration_can_meet_is_unreachable(tmp_path: Path) -> None:
    world = small_world(tmp_path, goal={"deadline": "2s"})
    world.ran(BASELINE, 20.0)
    stop = stopped(world)
    assert stop.kind is StopKind.UNREACHABLE
    assert "within the limits" in stop.reason


def test_one_training_ends_with_the_first_run_that_arrives(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    stop = stopped(world)
    assert stop.kind is StopKind.ARRIVED
    assert [p.outcome for p in world.probes()].count(Outcome.REACHED) == 1


def test_many_trainings_end_with_an_answer_better_than_the_present_settings(tmp_path: Path) -> None:
    world = small_world(tmp_path, goal={"trainings": 20})
    result = world.search(ModelPolicy()).run()
    stop = result.stop
    assert stop.kind is StopKind.NO_GAIN
    assert "its cost: starting a probe takes 500 ms, all further trainings " in stop.reason
    assert result.beliefs is not None
    forecast = result.beliefs.forecast
    chosen = forecast.configurations[int(np.argmin(forecast.quantile(0.5)))]
    truth, best = world.law.seconds_to_target(chosen), fastest(world)
    assert truth < 0.5 * world.law.seconds_to_target(BASELINE)
    assert truth < 1.5 * best
    # The search itself cost a small part of what the answer serves.
    assert world.state().spent.seconds < 20 * 0.25 * world.law.seconds_to_target(BASELINE)


@pytest.mark.parametrize("startup", [0.0, 0.5])
def test_a_start_up_that_was_not_measured_is_not_stated(tmp_path: Path, startup: float) -> None:
    world = small_world(tmp_path, goal={"trainings": 20})
    world.prober.startup_seconds = startup
    stop = stopped(world)
    assert stop.kind is StopKind.NO_GAIN
    assert ("starting a probe takes" in stop.reason) is (startup > 0.0)


def fastest(world: World) -> float:
    return min(world.law.seconds_to_target(c) for c in world.job.search_space().candidates())


def test_who_pays_by_the_node_trains_on_fewer_where_scaling_is_poor(tmp_path: Path) -> None:
    """Four nodes on cores of their own: faster, but three nodes' price more."""
    law = replace(SLOW_LAW, cores=8, hop_seconds=4e-3)
    chosen = {}
    for minimize in ("seconds", "dollars"):
        world = small_world(
            tmp_path / minimize,
            law,
            cluster={"nodes": [1, 4], "dollars_per_node_hour": 3.0},
            goal={"minimize": minimize, "trainings": 50},
        )
        result = world.search(ModelPolicy()).run()
        assert result.beliefs is not None
        cost = result.beliefs.forecast.quantile(0.5) * result.beliefs.price
        chosen[minimize] = result.beliefs.configurations[int(np.argmin(cost))]
    assert chosen["seconds"].nodes == 4
    assert chosen["dollars"].nodes == 1


@pytest.mark.slow
def test_searching_and_training_cost_no_more_than_training_as_before(tmp_path: Path) -> None:
    ratios = []
    for seed in range(10):
        space = {"learning_rate": {"low": 1e-4, "high": 1.0, "levels_per_decade": 3}}
        job = make_job(space=space, budget={"time": "2h"})
        world = World(tmp_path / str(seed), job=job, law=random_law(seed), seed=seed)
        assert stopped(world).kind is StopKind.ARRIVED
        ratios.append(world.state().spent.seconds / world.law.seconds_to_target(BASELINE))
    # Measured: 0.21 to 1.34, median 0.46.
    assert np.median(ratios) < 0.9, ratios
    assert max(ratios) < 2.0, ratios


MACHINE = {"fixed_seconds": "1ms", "seconds_per_sample": "1ms", "latency": "10us", "bandwidth": "10Gbit/s"}


def emulated_world(folder: Path, law: Law = SLOW_LAW, **sections: Any) -> World:
    settings: dict[str, Any] = {
        "cluster": {"nodes": [1, 2], "machine": MACHINE},
        "probe": {"kind": "emulated"},
    }
    return small_world(folder, law, **{**settings, **sections})


def test_an_emulated_arrival_trains_nothing_and_ends_nothing(tmp_path: Path) -> None:
    world = emulated_world(tmp_path, budget={"time": "5m"})
    stop = stopped(world)
    assert stop.kind in (StopKind.NO_GAIN, StopKind.BUDGET)
    state = world.state()
    assert state.further_trainings == 1
    assert any(run.measurement.samples > 1000 for run in state.runs.values())


def test_the_first_emulated_probe_goes_by_samples_alone(tmp_path: Path) -> None:
    first = decided(emulated_world(tmp_path, budget={"time": "10m"}))
    assert first.until.training_seconds is None
    assert first.until.samples is not None


def charged(world: World) -> dict[bool, float]:
    """Charged seconds of leading runs, and of looks elsewhere."""
    found = {True: 0.0, False: 0.0}
    for measurement in world.state().slices:
        found[measurement.purpose is Purpose.TRAINING] += measurement.charged_seconds
    return found


def test_half_of_an_emulation_s_time_goes_to_the_leader_until_it_has_arrived(tmp_path: Path) -> None:
    world = emulated_world(tmp_path, replace(SLOW_LAW, samples=1e6), budget={"time": "2m"})
    assert stopped(world).kind is StopKind.BUDGET
    assert not any(run.arrived for run in world.state().runs.values())
    spent = charged(world)
    longest = max(measurement.charged_seconds for measurement in world.state().slices)
    assert spent[True] == pytest.approx(spent[False], abs=2 * longest)


def test_an_emulation_without_further_gain_still_settles_its_leader(tmp_path: Path) -> None:
    alone = {"batch_size": [64], "learning_rate": [0.05]}
    world = emulated_world(tmp_path, cluster={"nodes": [1], "machine": MACHINE}, space=alone, baseline=None)
    assert stopped(world).kind is StopKind.NO_GAIN
    (run,) = world.state().runs.values()
    assert run.arrived


def auto_world(folder: Path, **sections: Any) -> World:
    settings: dict[str, Any] = {
        "cluster": {"nodes": [1, 2, 16, 64], "nodes_at_hand": 2, "machine": MACHINE},
        "probe": {"kind": "auto"},
        "budget": {"time": "5m"},
    }
    return small_world(folder, **{**settings, **sections})


def test_partly_emulated_clusters_are_searched_on_both_sides(tmp_path: Path) -> None:
    world = auto_world(tmp_path)
    assert stopped(world).kind in (StopKind.NO_GAIN, StopKind.BUDGET)
    nodes = {probe.configuration.nodes for probe in world.probes()}
    assert nodes & {1, 2}
    assert any(run.arrived for run in world.state().runs.values())


def test_a_real_run_is_never_resumed_on_emulated_ranks(tmp_path: Path) -> None:
    """What all-reduce shows holds for any nodes: its run goes on where it is."""
    world = auto_world(tmp_path)
    world.search(ModelPolicy()).run()
    transferred = [probe for probe in world.probes() if "resumed as" in probe.reason]
    stored = {probe.probe_id: probe for probe in world.probes()}
    for probe in transferred:
        successor = stored[int(probe.reason.rsplit(" ", 1)[1])]
        assert world.cluster.emulates(probe.configuration) == world.cluster.emulates(successor.configuration)


def test_emulated_ranks_are_not_timed_where_real_ones_can_be(tmp_path: Path) -> None:
    world = auto_world(tmp_path)
    world.search(ModelPolicy()).run()
    timings = [probe for probe in world.probes() if probe.purpose is Purpose.TIMING]
    assert not any(world.cluster.emulates(probe.configuration) for probe in timings)


def test_what_is_known_not_to_fit_is_not_started_while_nothing_is_scored(tmp_path: Path) -> None:
    world = small_world(tmp_path, replace(SLOW_LAW, memory_samples=20))
    stopped(world)
    least = math.inf
    for probe in world.probes():
        share = -(-probe.configuration.batch_size // probe.configuration.nodes)
        assert share < least
        if probe.outcome is Outcome.OUT_OF_MEMORY:
            least = share
