from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import Configuration
from tests.tuner.search.scripted import (
    GOOD,
    Scripted,
    go_on,
    small_world,
    start,
    trial_states,
)
from tests.tuner.search.world import BASELINE, configuration
from tuner.domain.measurement import Outcome, Purpose
from tuner.search.model_policy import ModelPolicy
from tuner.search.optuna_trials import StudyTrials
from tuner.search.policy import Abandon, Decision, Stop, StopKind
from tuner.search.state import SearchState


def test_a_run_that_arrives_is_a_complete_trial_with_its_training_seconds_as_value(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD, 1e9, Purpose.TRAINING))).run()
    (trial,) = world.optuna_study.get_trials()
    (run,) = world.state().runs.values()
    assert trial.state is TrialState.COMPLETE
    assert trial.value == pytest.approx(run.seconds_to_target)
    assert Configuration(trial.params) == GOOD
    assert trial.user_attrs["outcome"] == "reached"
    assert trial.user_attrs["charged_seconds"] == pytest.approx(world.state().spent.seconds)


def test_scorings_are_a_trial_s_intermediate_values_by_samples(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD, 3.0), go_on(1, 7.0))).run()
    (trial,) = world.optuna_study.get_trials()
    measured = world.probes()[0].measurement
    assert measured is not None
    assert trial.intermediate_values == {p.samples: p.value for p in measured.curve}
    assert len(measured.curve) > 10


def test_a_timing_is_a_pruned_trial_without_values(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD, 2.0, Purpose.TIMING))).run()
    (trial,) = world.optuna_study.get_trials()
    assert trial.state is TrialState.PRUNED
    assert trial.intermediate_values == {}
    assert trial.user_attrs["purpose"] == "timing"
    assert trial.user_attrs["step_seconds"] == pytest.approx(world.law.step_seconds(GOOD), rel=0.2)


def test_what_broke_down_fails_and_what_is_given_up_is_pruned(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    beyond = configuration(1, 64, 0.9)
    world.law.edge_rate = 0.5
    script = Scripted(start(beyond), start(GOOD), Abandon(probe_id=2, reason="no use"))
    world.search(script).run()
    assert trial_states(world) == [TrialState.FAIL, TrialState.PRUNED]
    assert [p.outcome for p in world.probes()] == [Outcome.DIVERGED, Outcome.STOPPED]
    assert world.probes()[1].reason == "no use"


def test_after_the_search_open_runs_are_pruned_but_not_after_a_used_up_budget(tmp_path: Path) -> None:
    for kind, expected in ((StopKind.NO_GAIN, TrialState.PRUNED), (StopKind.BUDGET, TrialState.RUNNING)):
        world = small_world(tmp_path / kind.value)

        def end(state: SearchState, kind: StopKind = kind) -> Decision:
            return Decision(action=Stop(kind=kind, reason="told to"))

        world.search(Scripted(start(GOOD), end)).run()
        assert trial_states(world) == [expected]
        assert world.probes()[0].outcome is Outcome.PAUSED


def test_a_trial_left_running_without_a_probe_is_failed(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.optuna_study.ask()
    world.search(Scripted(start(GOOD))).run()
    assert trial_states(world) == [TrialState.FAIL, TrialState.PRUNED]


def test_scores_that_a_kill_kept_from_a_trial_are_added_at_the_next_start(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(Scripted(start(GOOD, 3.0), budget_used_up)).run()
    (probe,) = world.probes()
    world.optuna_study = optuna.create_study()
    number = StudyTrials(world.optuna_study, world.job).begin(GOOD, Purpose.TRAINING)
    assert probe.measurement is not None
    assert number == probe.trial_number
    first = probe.measurement.curve[:4]
    StudyTrials(world.optuna_study, world.job).report(number, first)
    world.search(Scripted(budget_used_up)).run()
    (trial,) = world.optuna_study.get_trials()
    assert trial.intermediate_values == {p.samples: p.value for p in probe.measurement.curve}
    assert len(probe.measurement.curve) > len(first)
    assert trial.state is TrialState.RUNNING


def test_trials_that_the_database_lost_are_made_again_from_the_ledger(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    beyond = configuration(1, 64, 0.9)
    world.law.edge_rate = 0.5
    world.search(Scripted(start(beyond), start(GOOD, 1e9, Purpose.TRAINING))).run()
    before = world.optuna_study.get_trials()
    world.optuna_study = optuna.create_study()
    world.search(Scripted()).run()
    again = world.optuna_study.get_trials()
    assert [t.state for t in again] == [TrialState.FAIL, TrialState.COMPLETE] == [t.state for t in before]
    for old, new in zip(before, again, strict=True):
        assert (new.params, new.value, new.user_attrs) == (old.params, old.value, old.user_attrs)
        assert new.intermediate_values == old.intermediate_values


def budget_used_up(_state: SearchState) -> Decision:
    return Decision(action=Stop(kind=StopKind.BUDGET, reason="told to"))


def test_predictions_are_stored_with_what_was_known_when_they_were_made(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(ModelPolicy()).run()
    reported = [p for p in world.ledger.predictions(1) if p.configuration == BASELINE]
    known = [p.seconds_observed for p in reported]
    assert known == sorted(known)
    assert known[0] > 0
    # Nothing is predicted before a run has left its start.
    assert [p.num_slices for p in reported] == list(range(2, len(reported) + 2))
    for prediction in world.ledger.predictions(1):
        levels = [prediction.quantiles[level] for level in (0.05, 0.5, 0.95)]
        assert levels == sorted(levels)
        assert 0 <= prediction.probability_of_reaching <= 1
    assert math.isfinite(reported[-1].quantiles[0.5])


def test_every_decision_s_fits_are_stored(tmp_path: Path) -> None:
    world = small_world(tmp_path)
    world.search(ModelPolicy()).run()
    (study,) = world.ledger.studies()
    fits = {fit.model: fit for fit in world.ledger.past_fits(study.fingerprint)}
    assert set(fits) == {"seconds", "samples"}
    last = fits["samples"]
    assert last.num_slices == len(world.state().slices)
    assert last.parameters["log noise scale"][1] > 0
    assert last.summary["converged"] is True
    assert all(isinstance(words, str) for words in last.summary["sentences"])
