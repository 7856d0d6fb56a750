"""Configurations that failed, scripts that end by themselves, and resumptions that were refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from search_spaces import Configuration
from tests.tuner.search.test_repeating import command_job
from tests.tuner.search.world import BASELINE, World, configuration
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.beliefs import believe, candidates, log_longest
from tuner.search.improvement import keeps_within
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.policy import Action, Continue, Start, Stop, StopKind
from tuner.search.stopping import ended_by_fault

SPACE = {"batch_size": [32, 64], "learning_rate": [0.01, 0.03]}
OTHERS = [configuration(1, batch, rate) for batch in (32, 64) for rate in (0.01, 0.03)]
OTHERS.remove(BASELINE)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return world_of(tmp_path)


def world_of(folder: Path, **sections: Any) -> World:
    sections = {"space": SPACE, "cluster": {"nodes": [1]}, **sections}
    return World(folder, job=command_job(resume="--resume {checkpoint}", **sections))


def measured(what: Configuration, outcome: Outcome, *, steps: int = 100, **more: Any) -> Measurement:
    """A slice that was scored after so many hundredths of a second."""
    samples, seconds = steps * what.batch_size, 0.01 * steps
    points = tuple(
        CurvePoint(
            training_seconds=share * seconds,
            step=int(share * steps),
            samples=int(share * samples),
            value=value,
        )
        for share, value in ((0.25, 0.2), (0.5, 0.3), (1.0, 0.4))
    )
    return Measurement(
        configuration=what,
        purpose=Purpose.STATISTICS,
        outcome=outcome,
        curve=points,
        step=steps,
        samples=samples,
        training_seconds=seconds,
        charged_seconds=seconds,
        **more,
    )


def broken(what: Configuration, *, purpose: Purpose = Purpose.STATISTICS, **more: Any) -> Measurement:
    return Measurement(
        configuration=what, purpose=purpose, outcome=Outcome.FAILED, error="KeyError: 'image'", **more
    )


def all_candidates(world: World) -> list[Configuration]:
    return candidates(world.state(), np.random.default_rng(0))


def asked(action: Action, world: World) -> Configuration:
    if isinstance(action, Continue):
        return next(p.configuration for p in world.probes() if p.probe_id == action.probe_id)
    assert isinstance(action, Start)
    return action.configuration


@pytest.mark.parametrize("purpose", [Purpose.STATISTICS, Purpose.TIMING])
def test_a_configuration_that_failed_is_no_candidate_any_more(world: World, purpose: Purpose) -> None:
    world.keep(measured(BASELINE, Outcome.PAUSED))
    world.keep(broken(OTHERS[0], purpose=purpose))
    assert world.state().given_up == {OTHERS[0]}
    assert set(all_candidates(world)) == {BASELINE, *OTHERS[1:]}


def test_a_run_that_failed_later_is_given_up_too_but_not_one_that_lost_its_nodes(world: World) -> None:
    world.keep(measured(BASELINE, Outcome.PAUSED), broken(BASELINE))
    lost = broken(OTHERS[0], infrastructure_fault=True)
    world.keep(measured(OTHERS[0], Outcome.PAUSED), lost)
    assert world.state().given_up == {BASELINE}
    assert BASELINE not in all_candidates(world)
    assert OTHERS[0] in all_candidates(world)


def test_what_succeeds_later_is_given_up_no_more(world: World) -> None:
    world.keep(broken(BASELINE))
    world.keep(measured(BASELINE, Outcome.PAUSED))
    assert world.state().given_up == frozenset()


def test_what_failed_before_this_run_of_the_search_is_tried_once_more(world: World) -> None:
    world.keep(broken(BASELINE))
    state = world.state()
    assert replace(state, past_faults=ended_by_fault(state)).given_up == frozenset()
    policy = ModelPolicy()
    assert asked(policy.decide(state).action, world) == BASELINE
    world.keep(broken(BASELINE))
    assert asked(policy.decide(world.state()).action, world) != BASELINE


def test_a_search_goes_on_with_those_that_do_not_fail(world: World) -> None:
    policy = ModelPolicy()
    policy.decide(world.state())
    world.keep(measured(BASELINE, Outcome.PAUSED))
    for other in OTHERS:
        world.keep(broken(other))
        assert asked(policy.decide(world.state()).action, world) not in world.state().given_up
    assert asked(policy.decide(world.state()).action, world) == BASELINE


def test_a_search_in_which_everything_fails_ends_with_that(world: World) -> None:
    policy = ModelPolicy()
    policy.decide(world.state())
    # Each was scored before it failed, and the first two went on for a while.
    for what in (BASELINE, *OTHERS[:1]):
        world.keep(measured(what, Outcome.PAUSED), broken(what))
    for what in OTHERS[1:]:
        world.keep(broken(what))
    stop = policy.decide(world.state()).action
    assert isinstance(stop, Stop)
    assert stop.kind is StopKind.FAULTS


def test_a_small_space_in_which_all_fail_ends_with_that(tmp_path: Path) -> None:
    world = world_of(tmp_path, space={"batch_size": [64], "learning_rate": [0.01]})
    policy = ModelPolicy()
    policy.decide(world.state())
    world.keep(broken(BASELINE))
    assert policy.decide(world.state()).action == Stop(
        kind=StopKind.FAULTS, reason="1 configuration failed, and no other configuration is left to try"
    )


def test_optuna_s_search_passes_over_what_failed(tmp_path: Path) -> None:
    world = world_of(tmp_path, budget={"probes": 12})
    policy = OptunaPolicy()
    policy.decide(world.state())
    world.keep(measured(BASELINE, Outcome.PAUSED), broken(BASELINE))
    for other in OTHERS[:2]:
        world.keep(measured(other, Outcome.PAUSED), broken(other))
    search = world.search(policy)
    suggested = {search._suggested(world.state())[1] for _ in range(10)}
    assert suggested == {OTHERS[2]}
    world.keep(measured(OTHERS[2], Outcome.PAUSED))
    assert asked(OptunaPolicyAfter(world).decide(), world) == OTHERS[2]


class OptunaPolicyAfter:
    """A policy that saw the study begin, so that none of its faults are past."""

    def __init__(self, world: World) -> None:
        self._world, self._policy = world, OptunaPolicy()
        self._policy._past_faults = frozenset()

    def decide(self) -> Action:
        return self._policy.decide(self._world.state()).action


def test_present_settings_that_run_out_of_memory_are_no_candidate(world: World) -> None:
    world.keep(broken(BASELINE.replaced(learning_rate=0.02)))
    world.keep(replace(broken(BASELINE), outcome=Outcome.OUT_OF_MEMORY))
    assert {c.batch_size for c in all_candidates(world)} == {32}


def test_a_refused_resumption_makes_every_run_start_over(world: World) -> None:
    world.keep(measured(BASELINE, Outcome.PAUSED))
    assert world.state().terms.resumes
    world.keep(measured(OTHERS[0], Outcome.PAUSED, resume_refused=True), measured(OTHERS[0], Outcome.PAUSED))
    assert not world.state().terms.resumes
    assert world.probes()[1].measurement.resume_refused


def reachable(world: World) -> set[Configuration]:
    """What is expected to reach the target."""
    rng = np.random.default_rng(0)
    state = world.state()
    beliefs = believe(state, candidates(state, rng), rng)
    expected = beliefs.expected
    return {c for c, cost in zip(beliefs.configurations, expected, strict=True) if math.isfinite(cost)}


def test_a_run_whose_script_ended_by_itself_is_over(world: World) -> None:
    world.keep(measured(BASELINE, Outcome.STOPPED))
    (run,) = world.state().runs.values()
    assert run.ended_by_itself
    assert run.has_ended
    assert BASELINE not in reachable(world)
    assert reachable(world), "another may be faster than the script's end"


def test_a_run_that_was_given_up_or_cancelled_did_not_end_by_itself(world: World) -> None:
    world.keep(measured(BASELINE, Outcome.PAUSED))
    world.ledger.end_probe(1, Outcome.STOPPED, "it can no longer win")
    world.keep(measured(OTHERS[0], Outcome.STOPPED, error="the job was cancelled from outside"))
    assert not any(run.ended_by_itself for run in world.state().runs.values())


@pytest.mark.parametrize(("by", "ends"), [("samples", [6400, 6400]), ("steps", [3200, 6400])])
def test_scripts_that_end_alike_show_that_all_end_there(world: World, by: str, ends: list[int]) -> None:
    small, large = configuration(1, 32, 0.03), configuration(1, 64, 0.03)
    world.keep(measured(small, Outcome.STOPPED, steps=200 if by == "samples" else 100))
    assert world.state().script_ends([small, large]) == [math.inf, math.inf]
    world.keep(measured(large, Outcome.STOPPED, steps=100))
    assert world.state().script_ends([small, large]) == ends
    world.keep(measured(BASELINE, Outcome.PAUSED, steps=300))
    assert world.state().script_ends([small, large]) == [math.inf, math.inf]


def test_what_needs_more_samples_than_scripts_run_for_is_unreachable(world: World) -> None:
    # All are at less than half of the target when the script ends; one more would arrive later.
    for what in (BASELINE, *OTHERS[:2]):
        world.keep(measured(what, Outcome.STOPPED, steps=6400 // what.batch_size))
    rng, state = np.random.default_rng(0), world.state()
    beliefs = believe(state, candidates(state, rng), rng)
    index = beliefs.configurations.index(OTHERS[2])
    assert np.median(beliefs.forecast.log_samples[:, index]) > math.log(6400)
    assert beliefs.forecast.probability_of_reaching()[index] == 0.0
    assert keeps_within(beliefs.prospects, log_longest(state, beliefs.prospects)).max() < 0.05


def test_a_run_that_arrived_after_the_others_ended_is_recommended(world: World) -> None:
    # Two runs end after the same samples and seconds; one of half their batch size needs twice the seconds.
    for what in (BASELINE, configuration(1, 64, 0.03)):
        world.keep(measured(what, Outcome.STOPPED, steps=100))
    slower = measured(configuration(1, 32, 0.03), Outcome.REACHED, steps=200)
    world.keep(replace(slower, curve=(*slower.curve[:-1], replace(slower.curve[-1], value=0.9))))
    rng, state = np.random.default_rng(0), world.state()
    beliefs = believe(state, candidates(state, rng), rng)
    assert math.exp(log_longest(state, beliefs.prospects).max()) >= 2.0
    assert beliefs.recommended == slower.configuration
