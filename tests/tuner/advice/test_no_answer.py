"""Why nothing is recommended, in words that say what to change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.tuner.search.test_turned_back import overfit_world, overfits
from tests.tuner.search.world import World, configuration, make_job
from tuner.advice.no_answer import has_score, has_turned_back, no_answer
from tuner.domain.errors import InfeasibleError, ProbeError
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose
from tuner.job import CommandSection
from tuner.search.interrupts import INTERRUPTED_STOP
from tuner.search.policy import Stop, StopKind

NOTHING_LEFT = Stop(kind=StopKind.UNREACHABLE, reason="nothing is left")
USED = Stop(kind=StopKind.BUDGET, reason="the time budget of 60 s is used up")


def command_world(folder: Path, **goal: Any) -> World:
    """A world whose job runs a script."""
    command = CommandSection(command="train.py {learning_rate} {batch_size}")
    return World(folder, job=make_job(goal=goal).model_copy(update={"workload": command}))


def seen(*values: float, batch: int = 64, outcome: Outcome = Outcome.PAUSED, **more: Any) -> Measurement:
    curve = tuple(
        CurvePoint(training_seconds=float(n), step=10 * n, samples=10 * n * batch, value=value)
        for n, value in enumerate(values, start=1)
    )
    made = Measurement(
        configuration=configuration(1, batch, 0.03),
        purpose=Purpose.STATISTICS,
        outcome=outcome,
        curve=curve,
        step=10 * len(values),
        samples=10 * len(values) * batch,
        training_seconds=float(len(values)),
        charged_seconds=5.0,
    )
    return replace(made, **more)


def test_without_a_score_the_reason_and_the_remarks_are_the_error(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    remarks = ("12 lines look like scores and did not match, such as 'val_accuracy: 0.09'",)
    world.keep(seen(remarks=remarks), seen(remarks=remarks))
    state = world.state()
    assert not has_score(state)
    error = no_answer(state, USED, Path("job.toml")).error(Path("out/report.html"))
    assert isinstance(error, InfeasibleError)
    lines = str(error).splitlines()
    assert lines[0].startswith(
        "no score was read, so there is no recommendation: the time budget of 60 s is used up"
    )
    assert "paceline check" in lines[0]
    assert lines[0].endswith("see the report: out/report.html")
    assert lines[1:] == [f"  warning: {remarks[0]}"]


def test_without_a_score_probes_that_failed_are_the_reason(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(seen(outcome=Outcome.FAILED, error="the script reported nothing"))
    error = no_answer(world.state(), USED, Path("job.toml")).error()
    assert isinstance(error, ProbeError)
    assert "Last error: the script reported nothing" in str(error)


def test_runs_that_turned_back_are_counted_with_their_best_values(tmp_path: Path) -> None:
    runs = [(16, overfits()), (32, overfits(0.9)), (64, overfits(1.1))]
    state = overfit_world(tmp_path, *runs).state()
    assert has_turned_back(state)
    reason = no_answer(state, USED, Path("job.toml")).reason
    assert reason.startswith("3 runs peaked at 0.4")
    assert "have been getting worse since: the target 0.38 seems out of reach" in reason


@pytest.mark.parametrize(("count", "early", "expected"), [(3, 6, True), (2, 6, False), (3, 0, True)])
def test_three_runs_that_turned_back_speak_for_one_that_has_not_come_as_far(
    tmp_path: Path, count: int, early: int, expected: bool
) -> None:
    runs = [(16, overfits()), (32, overfits(0.9)), (64, overfits(1.1))][:count]
    others = [(128, overfits()[:early])] if early else []
    assert has_turned_back(overfit_world(tmp_path, *runs, *others).state()) is expected


def test_runs_that_collapsed_do_not_speak_for_others(tmp_path: Path) -> None:
    collapsed = [np.append(overfits(scale)[:20], [2.2, 2.2, 2.2]) for scale in (1.0, 0.9, 1.1)]
    runs = [(batch, values) for batch, values in zip((16, 32, 64), collapsed, strict=True)]
    state = overfit_world(tmp_path, *runs, (128, overfits()[:6])).state()
    assert all(run.turned_back for run in state.runs.values() if run.configuration.batch_size < 128)
    assert not has_turned_back(state)


def test_an_open_run_after_a_spike_is_not_left_out(tmp_path: Path) -> None:
    further = np.append(overfits()[:10] - 0.3, [2.2, 2.1, 2.0])
    state = overfit_world(tmp_path, (16, overfits()), (128, further)).state()
    assert not has_turned_back(state)


def test_where_all_runs_collapsed_they_are_the_reason(tmp_path: Path) -> None:
    collapsed = [np.append(overfits(scale)[:20], [2.2, 2.2, 2.2]) for scale in (1.0, 0.9, 1.1)]
    state = overfit_world(tmp_path, *zip((16, 32, 64), collapsed, strict=True)).state()
    assert no_answer(state, USED, Path("job.toml")).reason.startswith("3 runs peaked")


def test_a_run_that_came_further_keeps_the_search_open(tmp_path: Path) -> None:
    runs = [(16, overfits()), (32, overfits(0.9)), (64, overfits(1.1))]
    further = (128, overfits()[:10] - 0.3)
    assert not has_turned_back(overfit_world(tmp_path, *runs, further).state())


def test_scripts_that_end_by_themselves_are_asked_for_more_epochs(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(seen(0.2, 0.3, outcome=Outcome.STOPPED))
    found = no_answer(world.state(), USED, Path("job.toml"))
    assert found.reason == ("the script ended after 1,280 samples, before the target; the best value was 0.3")
    assert found.changes[0] == "let the script train for more epochs"


def test_more_budget_is_proposed_only_where_it_was_the_limit(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(seen(0.2, 0.3))
    assert "raise the limits in [budget]" in no_answer(world.state(), USED, Path("j")).changes
    hopeless = Stop(kind=StopKind.UNREACHABLE, reason="no configuration is expected to reach the target")
    assert "raise the limits in [budget]" not in no_answer(world.state(), hopeless, Path("j")).changes


@pytest.mark.parametrize("last", [0.4, float("nan")])
def test_a_run_that_turned_back_and_then_diverged_has_a_reason(tmp_path: Path, last: float) -> None:
    world = command_world(tmp_path)
    values = (0.2, 0.4, 0.6, 0.7, 0.72, 0.7, 0.66, 0.6, 0.55, 0.5, 0.45, last)
    world.keep(seen(*values, outcome=Outcome.DIVERGED))
    found = no_answer(
        world.state(), Stop(kind=StopKind.UNREACHABLE, reason="nothing is left"), Path("job.toml")
    )
    assert "0.72" in found.reason


def test_the_best_value_leaves_out_scores_that_are_no_number(tmp_path: Path) -> None:
    world = command_world(tmp_path)
    world.keep(seen(float("nan"), batch=32, outcome=Outcome.DIVERGED))
    world.keep(seen(0.2, 0.3, 0.31))
    found = no_answer(
        world.state(), Stop(kind=StopKind.UNREACHABLE, reason="nothing is left"), Path("job.toml")
    )
    assert "the best value was 0.31" in found.reason


def test_one_run_that_turned_back_is_not_the_reason_where_others_were_stopped(tmp_path: Path) -> None:
    state = overfit_world(tmp_path, (16, overfits()), (128, overfits()[:6])).state()
    reason = no_answer(state, USED, Path("job.toml")).reason
    assert reason.startswith("no configuration is expected to reach the target 0.38")


def test_an_interrupted_search_does_not_doubt_the_target(tmp_path: Path) -> None:
    world = command_world(tmp_path, target=0.9)
    world.keep(seen(0.2, 0.3))
    found = no_answer(world.state(), INTERRUPTED_STOP, Path("job.toml"))
    assert found.reason == (
        "there is no recommendation yet: the search was interrupted; the same command resumes it"
    )
    assert found.changes == ()
