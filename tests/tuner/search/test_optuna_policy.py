from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import Outcome, Purpose
from tuner.search.optuna_policy import OptunaPolicy
from tuner.search.policy import Abandon, Ask, Continue, Start, Stop, StopKind

LAW = Law(samples=3e4, seconds_per_sample=1e-3)


def make_world(folder: Path, law: Law = LAW, sampler: str = "random", **sections: Any) -> World:
    space = {"batch_size": [1, 64, 256], "learning_rate": {"low": 1e-3, "high": 1.0}}
    settings: dict[str, Any] = {"space": space, "budget": {"time": "10m"}, "baseline": None}
    return World(folder, job=make_job(**{**settings, **sections}), law=replace(law), sampler=sampler)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_optuna_s_samplers_reach_the_target_and_give_up_what_cannot_win(tmp_path: Path, sampler: str) -> None:
    world = make_world(tmp_path, sampler=sampler, goal={"trainings": 5}, budget={"time": "25m", "probes": 14})
    result = world.search(OptunaPolicy()).run()
    stop = result.stop
    assert stop.kind is StopKind.BUDGET
    assert result.beliefs is None
    states = [trial.state for trial in world.optuna_study.get_trials()]
    assert TrialState.COMPLETE in states
    assert TrialState.PRUNED in states
    space = world.job.search_space()
    assert all(space.is_feasible(c) for c, _ in world.prober.started)
    # Nobody trained for longer than the best until then took.
    best = 0.2 * 1500.0
    for probe in world.probes():
        assert probe.slices[-1].training_seconds <= best + 1.0
        run = next((r for r in world.state().runs.values() if r.probe.probe_id == probe.probe_id), None)
        if run is not None and run.seconds_to_target is not None:
            best = min(best, run.seconds_to_target)


def test_one_training_ends_with_the_first_that_arrives(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    stop = world.search(OptunaPolicy()).run().stop
    assert stop.kind is StopKind.ARRIVED
    assert world.probes()[-1].outcome is Outcome.REACHED
    assert all(p.outcome is not Outcome.PAUSED for p in world.probes())


def test_a_run_that_took_longer_than_the_best_is_given_up(tmp_path: Path) -> None:
    world = make_world(tmp_path, goal={"trainings": 5})
    world.ran(configuration(1, 64, 0.08), 1e9)
    (best,) = world.state().runs.values()
    world.ran(configuration(1, 64, 0.002), (best.seconds_to_target or 0.0) + 1.0)
    action = OptunaPolicy().decide(world.state()).action
    assert action == Abandon(probe_id=2, reason="it can no longer become the best configuration")


def test_while_nothing_arrived_a_run_may_use_a_fifth_of_the_time(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    world.ran(configuration(1, 64, 0.001), 115.0)
    action = OptunaPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    assert action.until.training_seconds == pytest.approx(120.0)
    world.ran(configuration(1, 64, 0.0015), 120.0)
    abandoned = {a.probe_id for a in [OptunaPolicy().decide(world.state()).action] if isinstance(a, Abandon)}
    assert abandoned <= {2}


def test_without_runs_it_asks_the_study(tmp_path: Path) -> None:
    action = OptunaPolicy().decide(make_world(tmp_path).state()).action
    assert isinstance(action, Ask)
    assert action.until.training_seconds == 10.0


def test_a_used_up_budget_of_probes_ends_it(tmp_path: Path) -> None:
    world = make_world(tmp_path, replace(LAW, edge_rate=1e-9), budget={"probes": 3})
    stop = world.search(OptunaPolicy()).run().stop
    assert (stop.kind, stop.reason) == (StopKind.BUDGET, "the budget of 3 probes is used up")
    assert len(world.probes()) == 3


def test_a_run_whose_rank_failed_goes_on_as_another_probe(tmp_path: Path) -> None:
    world = make_world(tmp_path)
    what = configuration(1, 64, 0.08)
    folder = tmp_path / "begun"
    folder.mkdir()
    good = world.prober.slice(what, Purpose.TRAINING, 6.0, folder)
    world.keep(good, replace(good, outcome=Outcome.FAILED, error="rank 0: killed", charged_seconds=1.0))
    action = OptunaPolicy().decide(world.state()).action
    assert isinstance(action, Start)
    assert (action.resume_from, action.configuration) == (1, what)
    stop = world.search(OptunaPolicy()).run().stop
    assert stop.kind is StopKind.ARRIVED
    assert world.prober.resumed_at_steps[1] == good.step


def test_a_farther_target_resumes_the_run(tmp_path: Path) -> None:
    near = make_world(tmp_path, replace(LAW, target=0.6), goal={"target": 0.6})
    near.search(OptunaPolicy()).run()
    far = make_world(tmp_path, LAW)
    far.ledger, far.study = near.ledger, near.study
    near.prober.law = far.law
    stop = far.search(OptunaPolicy(), prober=near.prober).run().stop
    assert isinstance(stop, Stop)
    assert stop.kind is StopKind.ARRIVED
    transferred = next(p for p in far.probes() if p.slices[0].charged_seconds == 0.0)
    assert transferred.outcome is Outcome.REACHED
