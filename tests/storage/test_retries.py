"""A database that is locked or out of reach for a while: nothing is lost and nothing is stored twice."""

from __future__ import annotations

import inspect
import logging
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from sqlalchemy import Connection, Engine, create_engine, text
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

from search_spaces import Configuration
from storage import Storage, open_storage, sql_ledger
from storage.engine import BUSY_TIMEOUT_SECONDS, parsed
from storage.retries import RETRY_SECONDS, Retries
from storage.transactions import writing
from tuner.domain.errors import StorageError
from tuner.domain.ledger import Lease
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.launchers.command_launcher import CommandLauncher

CONFIGURATION = Configuration(batch_size=8)
SLICE = Measurement(configuration=CONFIGURATION, purpose=Purpose.TRAINING, outcome=Outcome.REACHED)


def started(storage: Storage) -> tuple[int, Lease]:
    study = storage.ledger.open_study("digits", "f1", {})
    lease = storage.ledger.start_probe(
        study.study_id, CONFIGURATION, Purpose.TRAINING, trial_number=0, owner="me", lease_seconds=60.0
    )
    return study.study_id, lease


def unreachable() -> OperationalError:
    return OperationalError("BEGIN", None, sqlite3.OperationalError("the connection is lost"))


def test_a_write_waits_for_a_lock_beyond_the_timeout_of_sqlite(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("storage.engine.BUSY_TIMEOUT_SECONDS", 0.01)
    with open_storage(sqlite_url) as storage:
        study_id, lease = started(storage)
        study = optuna.create_study(storage=storage.optuna_storage())
        trial = study.ask()
        holder = sqlite3.connect(str(parsed(sqlite_url).database), check_same_thread=False)
        for write in (
            lambda: storage.ledger.append_slice(lease, SLICE),
            lambda: trial.report(0.5, step=1),
        ):
            holder.execute("BEGIN IMMEDIATE")
            release = threading.Timer(0.3, holder.rollback)
            release.start()
            write()
            release.join()
        holder.close()
        assert [probe.slices for probe in storage.ledger.probes(study_id)] == [(SLICE,)]
        assert study.trials[0].intermediate_values == {1: 0.5}
    (first, second) = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING]
    assert "is locked by another process: database is locked. To do: " in first
    assert first.endswith("Paceline tries again for up to 600 s")
    assert second == first


def test_a_slice_that_was_committed_before_the_connection_was_cut_is_not_stored_twice(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    interruptions = 0

    @contextmanager
    def interrupted_once(engine: Engine) -> Iterator[Connection]:
        nonlocal interruptions
        with writing(engine) as connection:
            yield connection
        interruptions += 1
        if interruptions == 1:
            raise StorageError("cut") from unreachable()

    with open_storage(sqlite_url) as storage:
        study_id, lease = started(storage)
        monkeypatch.setattr(sql_ledger, "writing", interrupted_once)
        storage.ledger.append_slice(lease, SLICE)
        assert interruptions == 2
        assert [probe.slices for probe in storage.ledger.probes(study_id)] == [(SLICE,)]


def test_after_the_stated_time_the_slice_is_saved_and_the_next_operations_do_not_wait(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("storage.retries.RETRY_SECONDS", 0.3)
    tries: list[float] = []

    @contextmanager
    def always_unreachable(_engine: Engine) -> Iterator[Connection]:
        tries.append(time.monotonic())
        raise StorageError("the database cannot be reached") from unreachable()
        yield

    def run() -> None:
        with open_storage(sqlite_url) as storage:
            study_id, lease = started(storage)
            storage.ledger.probes(study_id)
            monkeypatch.setattr(sql_ledger, "writing", always_unreachable)
            try:
                storage.ledger.append_slice(lease, SLICE)
            finally:
                num_tries = len(tries)
                with pytest.raises(StorageError, match="cannot be reached"):
                    storage.ledger.release(lease)
                assert len(tries) == num_tries + 1

    with pytest.raises(StorageError, match=r"cannot be reached. What was measured is in .*recovery-1.jsonl"):
        run()
    assert len(tries) > 3
    monkeypatch.undo()
    (file,) = tmp_path.glob("*.jsonl")
    with open_storage(sqlite_url, lambda: time.time() + 100) as storage:
        added = storage.recover(file)
        assert (added.num_studies, added.num_probes, added.num_slices) == (0, 0, 1)
        (study,) = storage.ledger.studies()
        (probe,) = storage.ledger.probes(study.study_id)
        assert (probe.slices, probe.outcome) == ((SLICE,), Outcome.REACHED)


def test_a_slice_whose_storing_is_interrupted_is_saved(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted(_engine: Engine) -> Iterator[Connection]:
        raise KeyboardInterrupt
        yield

    def run() -> None:
        with open_storage(sqlite_url) as storage:
            study_id, lease = started(storage)
            storage.ledger.probes(study_id)
            with monkeypatch.context() as patch:
                patch.setattr(sql_ledger, "writing", interrupted)
                storage.ledger.append_slice(lease, SLICE)

    with pytest.raises(
        StorageError, match=r"could not be stored. What was measured is in .*recovery-1.jsonl"
    ):
        run()
    (file,) = tmp_path.glob("*.jsonl")
    with open_storage(sqlite_url, lambda: time.time() + 100) as storage:
        assert storage.recover(file).num_slices == 1


def test_a_slice_that_is_stored_before_the_interrupt_is_not_saved_again(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    @contextmanager
    def interrupted_afterwards(engine: Engine) -> Iterator[Connection]:
        with writing(engine) as connection:
            yield connection
        raise KeyboardInterrupt

    def run() -> None:
        with open_storage(sqlite_url) as storage:
            study_id, lease = started(storage)
            storage.ledger.probes(study_id)
            with monkeypatch.context() as patch:
                patch.setattr(sql_ledger, "writing", interrupted_afterwards)
                storage.ledger.append_slice(lease, SLICE)

    with pytest.raises(KeyboardInterrupt):
        run()
    assert list(tmp_path.glob("*.jsonl")) == []


def test_another_error_is_not_repeated(sqlite_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with open_storage(sqlite_url) as storage:
        started(storage)
        with storage._engine.begin() as connection:
            connection.exec_driver_sql("DROP TABLE paceline_fits")
        with pytest.raises(StorageError, match="no such table"):
            storage.ledger.past_fits("f1")
    assert not caplog.records


@pytest.mark.slow
def test_cut_connections_and_locks_of_postgresql_lose_nothing(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("storage.engine._LOCK_TIMEOUT_SECONDS", 1)
    server = create_engine(parsed(postgres_url), isolation_level="AUTOCOMMIT", poolclass=NullPool)
    others = "FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    with open_storage(postgres_url) as storage, server.connect() as connection:
        study_id, lease = started(storage)
        study = optuna.create_study(storage=storage.optuna_storage())
        trial = study.ask()

        def end_connections() -> None:
            connection.execute(text(f"SELECT pg_terminate_backend(pid) {others}"))

        def disturb() -> None:
            time.sleep(0.3)
            end_connections()
            time.sleep(1.5)  # beyond the timeout for locks
            holder.rollback()

        end_connections()
        assert len(storage.ledger.probes(study_id)) == 1
        end_connections()
        trial.report(0.25, step=1)
        for write, table in (
            (lambda: storage.ledger.append_slice(lease, SLICE), "paceline_probes"),
            (lambda: trial.report(0.5, step=2), "trial_intermediate_values"),
        ):
            holder = create_engine(parsed(postgres_url), poolclass=NullPool).connect()
            holder.execute(text(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE"))
            own = holder.execute(text("SELECT pg_backend_pid()")).scalar_one()
            others = f"{others} AND pid <> {own}"
            thread = threading.Thread(target=disturb)
            thread.start()
            write()
            thread.join()
            holder.close()
        assert [probe.slices for probe in storage.ledger.probes(study_id)] == [(SLICE,)]
        assert study.trials[0].intermediate_values == {1: 0.25, 2: 0.5}
    said = [record.getMessage() for record in caplog.records]
    assert any("cannot be reached: terminating connection" in line for line in said)
    assert not any("refused a statement" in line for line in said)


def test_opening_waits_for_a_lock(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("storage.engine.BUSY_TIMEOUT_SECONDS", 0.01)
    holder = sqlite3.connect(str(parsed(sqlite_url).database), check_same_thread=False)
    holder.execute("BEGIN EXCLUSIVE")
    release = threading.Timer(0.2, holder.rollback)
    release.start()
    with open_storage(sqlite_url) as storage:
        assert storage.ledger.studies() == []
        holder.execute("BEGIN EXCLUSIVE")
        release = threading.Timer(0.2, holder.rollback)
        release.start()
        optuna.create_study(storage=storage.optuna_storage())
    release.join()
    holder.close()


def test_opening_ends_after_the_stated_time(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("storage.engine.BUSY_TIMEOUT_SECONDS", 0.01)
    monkeypatch.setattr("storage.database.OPENING_SECONDS", 0.05)
    holder = sqlite3.connect(str(parsed(sqlite_url).database))
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(StorageError, match="is locked by another process"):
        open_storage(sqlite_url)
    holder.close()
    (warning,) = caplog.records
    assert warning.getMessage().endswith("Paceline tries again for up to 0.05 s")


@pytest.mark.parametrize("is_retrying", [True, False])
def test_one_interrupt_is_enough_during_an_outage(monkeypatch: pytest.MonkeyPatch, is_retrying: bool) -> None:
    monkeypatch.setattr("storage.retries._LEAVING_SECONDS", 0.2)
    retries = Retries(parsed("sqlite:////data/study.db"))
    tries: list[None] = []

    def fail() -> None:
        tries.append(None)
        raise StorageError("the database cannot be reached") from unreachable()

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    cannot_be_reached = pytest.raises(StorageError, match="cannot be reached")
    started_at = time.monotonic()
    try:
        if is_retrying:
            with monkeypatch.context() as patch:
                patch.setattr(time, "sleep", interrupt)
                retries.wrapped(fail)()
        interrupt(0.0)
    except KeyboardInterrupt:
        with cannot_be_reached:
            retries.wrapped(fail)()
    num_tries = len(tries)
    assert num_tries == 1 if is_retrying else num_tries > 1
    for _ in range(3):
        with cannot_be_reached:
            retries.wrapped(fail)()
    assert len(tries) == num_tries
    assert time.monotonic() - started_at < RETRY_SECONDS / 2


def test_jobs_wait_longer_for_the_tuner_than_the_tuner_waits_for_the_database() -> None:
    waits = inspect.signature(CommandLauncher).parameters["orphan_seconds"].default
    assert waits > RETRY_SECONDS + BUSY_TIMEOUT_SECONDS
