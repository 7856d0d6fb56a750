from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay_problem import Goal, Problem
from benchmarks.replay_search import ReplayedSearch, steps
from tests.recorded_grid import grid
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import Recording
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Continue, Start
from tuner.search.score_times import score_times

#: Steps of the grid's runs take some tens of milliseconds: a first look as long as a start-up shows nothing.
UNSCORED_STEPS = 60


def scored_late() -> Recording:
    """The grid's runs, each first scored after so many steps."""
    found = grid(machines=("small",))
    late = [
        replace(run, curve=run.curve + np.array([run.step_seconds, 1, 0]) * UNSCORED_STEPS)
        for run in found.runs
    ]
    return replace(found, runs=tuple(late))


@pytest.fixture
def problem(tmp_path: Path) -> Problem:
    path = tmp_path / "late.jsonl.gz"
    write_recording(scored_late(), path)
    return Problem(path=path, goal="seconds", trainings=1000, deadline=None)


def begin(search: ReplayedSearch, place: int, seconds: float) -> None:
    what = search.state().space.candidates()[place]
    until = Until(training_seconds=seconds)
    search.execute(Start(configuration=what, purpose=Purpose.STATISTICS, until=until, reason="told to"))


def test_before_the_first_score_no_time_is_known(problem: Problem) -> None:
    search = ReplayedSearch(problem)
    candidates = search.state().space.candidates()
    begin(search, 3, 3.0)
    begin(search, 5, 2.0)
    found = score_times(search.state(), candidates, np.ones(len(candidates)))
    assert found.tolist() == [0.0] * len(candidates)


@pytest.mark.parametrize("unit", ["samples", "steps", "seconds"])
def test_scores_come_in_the_unit_in_which_they_vary_least(tmp_path: Path, unit: str) -> None:
    runs = []
    for run in grid(machines=("small",)).runs:
        batch = run.configuration.batch_size
        each = {"samples": 6400 / batch, "steps": 100.0, "seconds": 40 / run.step_seconds}[unit]
        steps_ = each * np.arange(1, len(run.curve) + 1)
        runs.append(
            replace(run, curve=np.stack([steps_ * run.step_seconds, steps_, run.curve[:, 2]], axis=1))
        )
    path = tmp_path / "even.jsonl.gz"
    write_recording(replace(grid(machines=("small",)), runs=tuple(runs)), path)
    problem = Problem(path=path, goal="seconds", trainings=1000, deadline=None)
    search = ReplayedSearch(problem)
    candidates = search.state().space.candidates()
    recording = problem.recording
    per_sample = np.array([recording.run(c).step_seconds / c.batch_size for c in candidates])
    firsts = np.array([recording.run(c).curve[0, 0] for c in candidates])
    for place in (0, 1, len(candidates) - 1):
        begin(search, place, 2.01 * float(firsts[place]))
    found = score_times(search.state(), candidates, per_sample)
    np.testing.assert_allclose(found[2:-1], firsts[2:-1], rtol=0.02)
    assert found[0] == pytest.approx(0.99 * firsts[0], rel=0.02)


def test_a_run_that_trained_too_long_without_a_score_rules_a_unit_out(problem: Problem) -> None:
    """One scored run leaves the unit open; a second one without a score by then rules units out."""
    search = ReplayedSearch(problem)
    candidates = search.state().space.candidates()
    recording = problem.recording
    per_sample = np.array([recording.run(c).step_seconds / c.batch_size for c in candidates])
    firsts = np.array([recording.run(c).curve[0, 0] for c in candidates])
    begin(search, 0, 1.01 * float(firsts[0]))
    by_samples = score_times(search.state(), candidates, per_sample)
    late = 1 + int(np.argmax(firsts[1:] / by_samples[1:]))
    assert firsts[late] > 1.3 * by_samples[late]
    begin(search, late, 0.99 * float(firsts[late]))
    found = score_times(search.state(), candidates, per_sample)
    others = np.delete(np.arange(len(candidates)), [0, late])
    assert (found[others] > 1.1 * by_samples[others]).any()


def test_what_is_overdue_comes_a_little_later(problem: Problem) -> None:
    search = ReplayedSearch(problem)
    candidates = search.state().space.candidates()
    first = float(problem.recording.run(candidates[0]).curve[0, 0])
    begin(search, 0, first * 1.01)
    begin(search, 1, 1.0)
    tiny = np.full(len(candidates), 1e-9)
    found = score_times(search.state(), candidates, tiny)
    assert found[1] > 0.0
    assert (found[[0, 1]] > 0).all()


@pytest.mark.parametrize("goal", ["seconds", "dollars"])
def test_a_run_without_a_score_goes_on_to_its_first_one(problem: Problem, goal: Goal) -> None:
    """Before it nothing is believed."""
    search = ReplayedSearch(replace(problem, goal=goal))
    resumed = 0
    for state, decision, _ in itertools.islice(steps(search, ModelPolicy(Believer(seed=1))), 60):
        scored = {key for key, run in state.runs.items() if run.measurement.trained_curve}
        action = decision.action
        if not scored:
            assert decision.beliefs is None
        if isinstance(action, Continue):
            probe = state.probes[action.probe_id]
            if probe.configuration not in scored:
                assert action.until.scores == 1
                resumed += 1
        elif isinstance(action, Start) and goal == "dollars" and scored:
            assert action.until.scores == 1
    assert resumed >= 1
