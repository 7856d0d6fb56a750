from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.tuner.search.world import BASELINE, World, configuration, make_job
from tuner.advice.recommend import Ending, recommend
from tuner.search import run_subset
from tuner.search.beliefs import candidates
from tuner.search.believer import Believer
from tuner.search.policy import Stop, StopKind
from tuner.search.run_subset import modelled
from tuner.search.runs import run_key
from tuner.search.state import SearchState

RATES = [round(0.003 * 1.5**k, 6) for k in range(10)]


def searched(folder: Path, **sections: object) -> World:
    """A study of the present settings and of ten learning rates; the fourth and the fifth train longest."""
    world = World(folder, job=make_job(**sections))  # type: ignore[arg-type]
    world.ran(BASELINE, 2.0)
    for k, rate in enumerate(RATES):
        world.ran(configuration(1, 64, rate), 2000.0 if k in (3, 4) else 2.0)
    return world


def rates(state: SearchState) -> set[float]:
    return {run.configuration.learning_rate for run in state.runs.values()}


def test_all_runs_are_modelled_while_there_are_few(tmp_path: Path) -> None:
    state = searched(tmp_path).state()
    assert modelled(state) is state


@pytest.mark.parametrize("minimize", ["seconds", "dollars"])
def test_the_best_the_newest_and_the_present_settings_are_modelled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, minimize: str
) -> None:
    price = {"dollars_per_node_hour": 1.0}
    world = searched(tmp_path, goal={"minimize": minimize}, cluster={"nodes": [1, 2], **price})
    state = world.state()
    arrived = {run.configuration.learning_rate for run in state.runs.values() if run.arrived}
    assert arrived == {RATES[3], RATES[4]}
    monkeypatch.setattr(run_subset, "MOST_RUNS", 5)
    chosen = modelled(state)
    assert rates(chosen) == {BASELINE.learning_rate, *arrived, *RATES[-2:]}
    assert chosen.left_out == state.runs.keys() - chosen.runs.keys()


def test_the_analysis_of_a_large_study_is_that_of_the_modelled_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    believer, state = Believer(), searched(tmp_path).state()
    monkeypatch.setattr(run_subset, "MOST_RUNS", 5)
    beliefs = believer.believe(state)
    assert beliefs is not None
    ending = Ending(
        state=state,
        beliefs=beliefs,
        stop=Stop(kind=StopKind.BUDGET, reason="the budget is used up"),
        predictions=[],
        study_name="study",
        job_path=tmp_path / "job.toml",
        created_at=0.0,
        refit=believer.refit,
    )
    answer = recommend(ending)
    assert answer is not None
    assert answer.analysis is not None
    assert {run.learning_rate for run in answer.analysis.rate_runs} == rates(modelled(state))
    changes = [row.change for row in answer.analysis.what_if if row.topic == "target"]
    assert [change.endswith("(nearer)") for change in changes] == [True, False]
    assert answer.analysis.curve_forecasts


def test_a_run_that_is_not_modelled_is_no_candidate(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = searched(tmp_path)
    monkeypatch.setattr(run_subset, "MOST_RUNS", 5)
    state = world.state()
    beliefs = Believer().believe(state)
    assert beliefs is not None
    keys = {run_key(state.job, c) for c in beliefs.configurations}
    assert len(beliefs.predictor.runs) == 5
    assert keys.isdisjoint(modelled(state).left_out)
    assert keys.issuperset(modelled(state).runs)
    assert set(candidates(modelled(state), np.random.default_rng(0))) == set(beliefs.configurations)
    assert beliefs.recommended is not None
