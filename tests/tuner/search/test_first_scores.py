from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.replay_problem import Problem
from benchmarks.replay_search import ReplayedSearch, steps
from tests.recorded_grid import STARTUP_SECONDS, grid
from tuner.domain.measurement import Purpose
from tuner.probes import Until
from tuner.recordings.file import write_recording
from tuner.recordings.recording import Recording
from tuner.search.first_scores import first_scores
from tuner.search.listed_policy import ListedPolicy
from tuner.search.policy import Continue, Start

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


def test_before_the_first_run_nothing_is_known(problem: Problem) -> None:
    state = ReplayedSearch(problem).state()
    found = first_scores(state, state.space.candidates())
    assert found.seconds == 0.0
    assert not found.is_unscored.any()


def test_runs_show_when_they_were_scored_or_how_long_was_too_short(problem: Problem) -> None:
    search = ReplayedSearch(problem)
    candidates = search.state().space.candidates()
    first = float(problem.recording.run(candidates[0]).curve[0, 0])
    assert first > 3.0
    begin(search, 3, 3.0)
    begin(search, 5, 2.0)
    found = first_scores(search.state(), candidates)
    assert found.seconds == pytest.approx(3.0)
    assert np.flatnonzero(found.is_unscored).tolist() == [3, 5]
    begin(search, 0, first + 30.0)
    found = first_scores(search.state(), candidates)
    assert found.seconds == pytest.approx(first)
    assert np.flatnonzero(found.is_unscored).tolist() == [3, 5]


def test_probes_grow_until_a_run_is_scored(problem: Problem) -> None:
    search = ReplayedSearch(problem)
    lengths: list[float] = []
    for state, decision, _ in steps(search, ListedPolicy(seed=1)):
        if any(run.measurement.curve for run in state.runs.values()):
            break
        action = decision.action
        assert isinstance(action, Start | Continue)
        assert action.until.training_seconds is not None
        lengths.append(action.until.training_seconds)
        assert len(lengths) < 50, "no run is trained until it is scored"
    assert lengths[:3] == [STARTUP_SECONDS] * 3
    # As short looks as the first would have shown nothing, however many.
    assert max(lengths) > 3 * STARTUP_SECONDS
