"""Runs that stand at their start for long: nothing is forecast before one has left it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.tuner.search.synthetic import Law
from tests.tuner.search.world import BASELINE, World, configuration, make_job
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Continue, Start

SPACE = {"batch_size": [32, 64], "learning_rate": {"low": 1e-3, "high": 0.1, "levels_per_decade": 3}}


def world_of(folder: Path, **sections: Any) -> World:
    settings: dict[str, Any] = {
        "cluster": {"nodes": [1]},
        "space": SPACE,
        "probe": {"first_score_samples": 1000, "score_growth": 1.5},
        "goal": {"metric": "accuracy", "target": 0.9},
    }
    return World(folder, job=make_job(**{**settings, **sections}), law=Law())


def ran(
    world: World,
    values: list[float],
    what: Any = BASELINE,
    *,
    outcome: Outcome = Outcome.PAUSED,
    startup: float = 1.0,
) -> None:
    """Writes down a run with a score for each value, every 1,000 samples and second."""
    curve = tuple(
        CurvePoint(training_seconds=float(n), step=16 * n, samples=1000 * n, value=value)
        for n, value in enumerate(values, start=1)
    )
    world.keep(
        Measurement(
            configuration=what,
            purpose=Purpose.STATISTICS,
            outcome=outcome,
            curve=curve,
            samples=1000 * len(values),
            step=16 * len(values),
            training_seconds=float(len(values)),
            charged_seconds=len(values) + startup,
            startup_seconds=startup,
        )
    )


@pytest.mark.parametrize(("values", "risen"), [([0.1], None), ([0.1, 0.13], None), ([0.1, 0.15, 0.12], 2000)])
def test_a_run_has_risen_once_it_gained_clearly(
    tmp_path: Path, values: list[float], risen: int | None
) -> None:
    world = world_of(tmp_path)
    ran(world, values)
    (run,) = world.state().runs.values()
    assert run.rise_samples == risen
    assert world.state().is_scored == (risen is not None)
    assert world.state().rise_samples == (risen or 0)


def test_a_run_at_its_start_continues_and_nothing_is_forecast(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    ran(world, [0.1, 0.1, 0.11])
    decision = ModelPolicy().decide(world.state())
    assert decision.beliefs is None
    assert isinstance(decision.action, Continue)
    assert decision.action.until.samples == 6000


def test_a_slice_of_a_run_at_its_start_trains_as_long_as_it_starts_up(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    world.cluster = replace(world.cluster, nodes_share_host=False)
    ran(world, [0.1, 0.1], startup=20.0)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    # 1,000 samples a second, after 2,000 samples; 0.2 s of each slice go to decisions.
    assert action.until.samples == 2000 + 20_200
    ran(world, [0.1] * 22, startup=20.0)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Start)
    assert action.until.samples is not None
    assert action.until.samples >= 20_000


def test_where_later_slices_reuse_the_ranks_the_first_start_up_is_not_paid_for_again(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    ran(world, [0.1, 0.1], startup=20.0)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    assert action.until.samples == 4000


def test_where_the_job_states_how_long_slices_are_those_at_the_start_are_so_too(tmp_path: Path) -> None:
    world = world_of(tmp_path, probe={"slice_seconds": 7.0})
    ran(world, [0.1, 0.1], startup=20.0)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    assert action.until.training_seconds == pytest.approx(9.0)
    assert (action.until.samples, action.until.scores) == (None, None)


def test_after_waiting_for_long_another_one_starts(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    ran(world, [0.1] * 9)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Start)
    assert action.configuration != BASELINE
    # It has to wait, too; then the one that saw least goes on.
    ran(world, [0.1], action.configuration)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Continue)
    assert action.probe_id == 2


def test_where_a_rate_breaks_down_a_smaller_one_is_tried(tmp_path: Path) -> None:
    world = world_of(tmp_path)
    ran(world, [0.1], BASELINE, outcome=Outcome.DIVERGED)
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Start)
    assert action.configuration.learning_rate < BASELINE.learning_rate


def test_a_run_that_arrived_is_not_left_for_one_at_its_start(tmp_path: Path) -> None:
    world = world_of(tmp_path, goal={"metric": "accuracy", "target": 0.9, "trainings": 50})
    ran(world, [0.1] * 7 + [0.5, 0.95])
    ran(world, [0.1, 0.1], configuration(1, 32, 0.03))
    beliefs = ModelPolicy().decide(world.state()).beliefs
    assert beliefs is not None
    assert beliefs.recommended == BASELINE
    # The next slice of a run lasts until runs usually rise.
    action = ModelPolicy().decide(world.state()).action
    assert isinstance(action, Start | Continue)
    assert action.until.samples is None or action.until.samples >= 8000
