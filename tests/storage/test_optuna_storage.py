"""Optuna's storage reads many trials in batches, and returns what Optuna's own class returns."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import pytest
from optuna.storages import RDBStorage

from storage import open_storage


def test_trials_are_read_in_batches_and_are_those_that_optuna_stores(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.optuna_storage._TRIALS_AT_ONCE", 3)
    sizes = []
    plain = RDBStorage._get_trials

    def counted(self: RDBStorage, *arguments: object) -> list[optuna.trial.FrozenTrial]:
        found = plain(self, *arguments)  # type: ignore[arg-type]
        sizes.append(len(found))
        return found

    monkeypatch.setattr(RDBStorage, "_get_trials", counted)
    with open_storage(sqlite_url) as storage:
        other = optuna.create_study(storage=storage.optuna_storage(), study_name="other")
        study = optuna.create_study(storage=storage.optuna_storage(), study_name="digits")
        for number in range(10):
            trial = study.ask()
            other.ask()
            trial.suggest_float("rate", 0.0, 1.0)
            trial.report(0.5 * number, step=number)
            if number % 3 == 0:
                study.tell(trial, 1.0)
    with open_storage(sqlite_url) as storage:
        sizes.clear()
        study = optuna.load_study(storage=storage.optuna_storage(), study_name="digits")
        found = study.get_trials()
        assert sizes == [3, 3, 3, 1]
        study.tell(1, 2.0)
        again = study.get_trials()
    assert [trial.number for trial in again] == list(range(10))
    assert again[1].value == 2.0
    monkeypatch.setattr(RDBStorage, "_get_trials", plain)
    optuna.load_study(storage=sqlite_url, study_name="digits").tell(1, 2.0, skip_if_finished=True)
    expected = optuna.load_study(storage=sqlite_url, study_name="digits").get_trials()
    assert again == expected
    assert found[2:] == expected[2:]


def test_a_whole_trial_is_stored_as_optuna_stores_it(sqlite_url: str, tmp_path: Path) -> None:
    whole = optuna.trial.create_trial(
        state=optuna.trial.TrialState.PRUNED,
        params={"rate": 0.5},
        distributions={"rate": optuna.distributions.FloatDistribution(0.0, 1.0)},
        user_attrs={"purpose": "training"},
        intermediate_values={32: 0.5, 64: math.inf, 96: -math.inf, 128: math.nan},
    )
    scores = dict(whole.intermediate_values)
    stored = []
    with open_storage(sqlite_url) as storage:
        for kind in (storage.optuna_storage(), f"sqlite:///{tmp_path}/plain.db"):
            study = optuna.create_study(storage=kind, study_name="digits")
            study.add_trial(whole)
            study.add_trial(whole)
            stored.append(optuna.load_study(storage=kind, study_name="digits").get_trials())
    assert whole.intermediate_values == scores
    ours, theirs = (
        [(t.number, t.state, t.params, t.user_attrs, repr(t.intermediate_values)) for t in trials]
        for trials in stored
    )
    assert ours == theirs
    assert [number for number, *_ in ours] == [0, 1]
