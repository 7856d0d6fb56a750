"""Runs of scripts that cannot resume: what goes on begins anew, and is paid for again."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import World, configuration, make_job
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import Job
from tuner.search.acquisition import Acquisition
from tuner.search.beliefs import believe, candidates
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Continue
from tuner.search.runs import is_interrupted, paid_slices
from tuner.search.state import read_state
from tuner.search.train_policy import TrainPolicy

HERE = configuration(1, 64, 0.08)
ALONE = {"batch_size": [64], "learning_rate": [0.08]}
LAW = Law(samples=6e4, seconds_per_sample=1e-3)


def command_job(*, resume: str | None = None, **sections: Any) -> Job:
    data = make_job(**sections).model_dump(mode="json")
    workload = {"command": "train {nodes} {batch_size} {learning_rate}", "resume": resume}
    return Job.model_validate({**data, "workload": workload, "probe": {}}, strict=False)


def world_of(folder: Path, **more: Any) -> World:
    sections = {"space": ALONE, "cluster": {"nodes": [1]}, "baseline": None, **more}
    return World(folder, job=command_job(**sections), law=replace(LAW))


def until_of(world: World) -> float:
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    assert action.until.samples is not None
    return action.until.samples * LAW.seconds_per_sample


def test_going_on_doubles_at_least_where_all_is_paid_again(tmp_path: Path) -> None:
    for name, resume in (("repeats", None), ("resumes", "--resume {checkpoint}")):
        (tmp_path / name).mkdir()
        world = world_of(tmp_path / name, resume=resume)
        lease = world.ran(HERE, 20.0)
        assert lease.probe_id == 1
        done = world.state().runs[HERE.without("nodes")].measurement.training_seconds
        # Within what the forecast's pace differs from the law's.
        assert (until_of(world) >= 1.85 * done) == (resume is None)


def test_a_run_that_starts_anew_costs_all_of_it(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(HERE, 20.0)
    state = world.state()
    rng = np.random.default_rng(0)
    beliefs = believe(state, candidates(state, rng), rng)
    index = beliefs.configurations.index(HERE)
    acquisition = Acquisition(state, beliefs, beliefs.prospects)
    # All of it is still to be trained, and the next slice trains again what was trained.
    assert acquisition.incumbent == index
    assert math.exp(acquisition.weights.log_incumbent) == pytest.approx(
        np.exp(beliefs.prospects.mean_log[index])
    )
    startup = state.slice_seconds
    assert acquisition.costs.fixed[index] - startup == pytest.approx(20.0 * state.overhead, rel=0.05)


def test_a_budget_that_ends_before_anything_new_is_not_spent(tmp_path: Path) -> None:
    world = world_of(tmp_path, budget={"time": 45.0})
    world.ran(HERE, 30.0)
    state = world.state()
    rng = np.random.default_rng(0)
    beliefs = believe(state, candidates(state, rng), rng)
    assert not Acquisition(state, beliefs, beliefs.prospects).can_go_on


def test_one_training_is_executed_in_one_slice(tmp_path: Path) -> None:
    action = TrainPolicy(HERE).decide(world_of(tmp_path).state()).action
    assert action.until.training_seconds > 1e8
    limited = TrainPolicy(HERE, limit_seconds=70.0).decide(world_of(tmp_path).state()).action
    assert limited.until.training_seconds == 70.0


def test_repeated_training_is_neither_overhead_nor_lost_to_starting(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.ran(HERE, 20.0)
    before = world.state()
    (run,) = before.runs.values()
    again = replace(
        run.measurement,
        curve=(),
        training_seconds=run.measurement.training_seconds + 5.0,
        startup_seconds=1.0,
        scoring_seconds=0.0,
        repeated_seconds=20.0,
        charged_seconds=26.0,
        outcome=Outcome.PAUSED,
    )
    world.keep(run.measurement, again)
    after = world.state()
    assert after.overhead < 1.2
    assert after.slice_seconds < 5.0


def test_a_complete_second_pass_is_the_measured_training(tmp_path: Path) -> None:
    def curve(seconds_per_sample: float, *samples: int) -> tuple[CurvePoint, ...]:
        return tuple(
            CurvePoint(training_seconds=n * seconds_per_sample, step=n // 100, samples=n, value=n / 1000)
            for n in samples
        )

    world = world_of(tmp_path, goal={"metric": "accuracy", "target": 0.8})
    slow = Measurement(
        configuration=HERE,
        purpose=Purpose.STATISTICS,
        outcome=Outcome.PAUSED,
        curve=curve(0.01, 100, 300, 600),
        step=6,
        samples=600,
        training_seconds=6.0,
        charged_seconds=6.5,
    )
    fast = replace(
        slow,
        outcome=Outcome.REACHED,
        curve=curve(0.002, 100, 300, 600, 800),
        step=8,
        samples=800,
        training_seconds=1.6,
        repeated_seconds=1.2,
        restart_seconds=1.2,
        charged_seconds=2.0,
    )
    world.keep(slow, fast)
    (run,) = world.state().runs.values()
    assert run.seconds_to_target == pytest.approx(1.6)
    assert run.measurement.training_seconds == 1.6
    assert run.measurement.curve == fast.curve
    assert run.measurement.charged_seconds == 8.5
    assert [trained for _, trained in paid_slices(run.probe)] == pytest.approx([6.0, 0.4])
    assert not is_interrupted(fast, 0.4)


@pytest.mark.parametrize(
    ("goal", "values", "start"),
    [
        ({"metric": "accuracy", "target": 0.9}, [0.5, 0.6], 0.3),
        ({"metric": "error_rate", "target": 0.1}, [0.5, 0.4], 0.7),
        ({"metric": "loss", "target": 0.5}, [2.5, 1.5], 3.5),
        ({"metric": "reward", "target": 100.0, "direction": "maximize"}, [-50.0, 10.0], -125.0),
        ({"metric": "loss", "target": 0.5}, [0.4], 0.505),
    ],
)
def test_a_run_that_nobody_scored_untrained_began_worse_than_its_first_scoring(
    tmp_path: Path, goal: dict[str, Any], values: list[float], start: float
) -> None:
    world = World(tmp_path, job=command_job(goal=goal))
    curve = tuple(
        CurvePoint(training_seconds=float(n), step=n, samples=100 * n, value=value)
        for n, value in enumerate(values, start=1)
    )
    world.keep(
        Measurement(
            configuration=HERE,
            purpose=Purpose.STATISTICS,
            outcome=Outcome.PAUSED,
            curve=curve,
            samples=curve[-1].samples,
            training_seconds=curve[-1].training_seconds,
            charged_seconds=3.0,
        )
    )
    state = read_state(world.job, world.cluster, world.probes(), 1000)
    assert state.start_value == pytest.approx(start)
