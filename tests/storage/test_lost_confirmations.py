"""Writes that were committed although the connection was cut before the confirmation: each is done once."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState
from sqlalchemy import Engine

from search_spaces import Configuration
from storage import Storage, open_storage
from tuner.domain.job_queue import JobLease, JobState, NewJob
from tuner.domain.ledger import PredictionRecord, RecommendationRecord
from tuner.domain.measurement import Purpose

CONFIGURATION = Configuration(batch_size=8)


@contextmanager
def first_confirmation_lost(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[None]]:
    """The first commit in the block takes effect, and fails nevertheless. Yields a list of all commits."""
    commits: list[None] = []
    plain = engine.dialect.do_commit

    def do_commit(connection: Any) -> None:
        plain(connection)
        commits.append(None)
        if len(commits) == 1:
            raise engine.dialect.loaded_dbapi.OperationalError("the connection is lost")

    with monkeypatch.context() as patch:
        patch.setattr(engine.dialect, "do_commit", do_commit)
        patch.setattr(time, "sleep", lambda _seconds: None)
        yield commits


def predictions(study_id: int) -> list[PredictionRecord]:
    return [
        PredictionRecord(
            study_id=study_id,
            configuration=Configuration(batch_size=batch_size),
            created_at=5.5,
            quantiles={0.5: 10.0},
            dollars={0.5: 1.0},
            probability_of_reaching=0.75,
            num_slices=1,
            seconds_observed=2.0,
        )
        for batch_size in (8, 16)
    ]


def a_probe(storage: Storage, study_id: int) -> object:
    return storage.ledger.start_probe(
        study_id, CONFIGURATION, Purpose.TRAINING, trial_number=1, owner="me", lease_seconds=60.0
    ).probe_id


def a_recommendation(storage: Storage, study_id: int) -> None:
    record = RecommendationRecord(study_id=study_id, created_at=5.5, recommendation={"a": 1})
    storage.ledger.add_recommendation(record)


@pytest.mark.parametrize(
    ("write", "stored", "num_rows"),
    [
        (
            lambda s, _: s.ledger.open_study("digits", "f1", {}, fresh=True).study_id,
            lambda s, _: [study.study_id for study in s.ledger.studies()],
            1,
        ),
        (a_probe, lambda s, i: [probe.probe_id for probe in s.ledger.probes(i)], 1),
        (lambda s, i: s.ledger.add_predictions(predictions(i)), lambda s, i: s.ledger.predictions(i), 2),
        (a_recommendation, lambda s, i: s.ledger.recommendations(i), 1),
    ],
    ids=["study", "probe", "predictions", "recommendation"],
)
def test_a_record_is_stored_once_for_each_call(
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[[Storage, int], object],
    stored: Callable[[Storage, int], list[object]],
    num_rows: int,
) -> None:
    ticks = iter(range(1000))
    with open_storage(database_url, lambda: 1e9 + next(ticks)) as storage:
        study_id = storage.ledger.open_study("digits", "f1", {}).study_id
        before = len(stored(storage, study_id))
        with first_confirmation_lost(storage._engine, monkeypatch) as commits:
            result = write(storage, study_id)
        assert len(commits) == 2
        found = stored(storage, study_id)
        assert len(found) == before + num_rows
        assert result is None or result == found[-1]
        # A second call is another record, even if it is equal.
        write(storage, study_id)
        assert len(stored(storage, study_id)) == before + 2 * num_rows


def test_a_trial_is_created_and_ended_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with open_storage(database_url) as storage:
        study = optuna.create_study(storage=storage.optuna_storage())
        engine = storage.optuna_storage().engine
        study.ask()
        with first_confirmation_lost(engine, monkeypatch):
            trial = study.ask()
        assert trial.number == 1
        with first_confirmation_lost(engine, monkeypatch):
            study.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, user_attrs={"a": 1}))
        assert study.ask().number == 3
        with first_confirmation_lost(engine, monkeypatch):
            trial.report(0.5, step=1)
        with first_confirmation_lost(engine, monkeypatch):
            trial.suggest_float("rate", 0.0, 1.0)
        with first_confirmation_lost(engine, monkeypatch) as commits:
            study.tell(trial, 2.0)
        assert len(commits) >= 2
        first, ended, added, last = study.get_trials()
    assert (ended.state, ended.value, ended.intermediate_values) == (TrialState.COMPLETE, 2.0, {1: 0.5})
    assert list(ended.params) == ["rate"]
    assert added.user_attrs == {"a": 1}
    assert [t.state for t in (first, added, last)] == [TrialState.RUNNING] * 3


def test_a_trial_that_has_ended_cannot_be_ended_again(sqlite_url: str) -> None:
    with open_storage(sqlite_url) as storage:
        study = optuna.create_study(storage=storage.optuna_storage())
        trial = study.ask()
        study.tell(trial, 2.0)
        with pytest.raises(optuna.exceptions.UpdateFinishedTrialError, match="can not be updated"):
            storage.optuna_storage().set_trial_state_values(trial._trial_id, TrialState.COMPLETE, [1.0])


def a_job(storage: Storage) -> int:
    return storage.queue.submit(NewJob(name="digits", job_file=""))[0].job_id


def a_lease(storage: Storage) -> JobLease:
    lease = storage.queue.claim("w", labels=(), lease_seconds=60.0, most_failures=3)
    assert lease is not None
    return lease


def test_a_job_is_submitted_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(database_url) as storage:
        with first_confirmation_lost(storage._engine, monkeypatch):
            job_id = a_job(storage)
        assert [job.job_id for job in storage.queue.jobs()] == [job_id]
        # Without a key, a second call is another job.
        assert a_job(storage) != job_id


def test_a_change_of_a_job_succeeds_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(database_url) as storage:
        job_id = a_job(storage)
        with first_confirmation_lost(storage._engine, monkeypatch):
            assert storage.queue.pause(job_id).state is JobState.PAUSED
        with first_confirmation_lost(storage._engine, monkeypatch):
            assert storage.queue.resume(job_id).state is JobState.QUEUED
        with first_confirmation_lost(storage._engine, monkeypatch):
            assert storage.queue.cancel(job_id, "not needed").state is JobState.CANCELLED
        texts = [event.text for event in storage.queue.events(job_id)]
        assert texts[1:] == ["asked to pause", "resumed", "cancelled: not needed"]


def test_a_job_is_claimed_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(database_url) as storage:
        first, second = a_job(storage), a_job(storage)
        with first_confirmation_lost(storage._engine, monkeypatch):
            lease = a_lease(storage)
        assert (lease.job_id, lease.attempt, storage.queue.job(first).attempt) == (first, 1, 1)
        assert storage.queue.job(second).state is JobState.QUEUED


def test_a_slice_is_offered_once(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with open_storage(database_url) as storage:
        job_id = a_job(storage)
        lease = a_lease(storage)
        with first_confirmation_lost(storage._engine, monkeypatch):
            number = storage.remote_slices.offer(lease, "probe-1", {}, lease_seconds=30)
        found = storage.remote_slices.take(job_id, "a")
        assert found is not None
        assert found.slice_id == number
        assert storage.remote_slices.take(job_id, "b") is None
