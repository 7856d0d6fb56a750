"""Several processes on one study database for minutes: no lost slice, no lease held by two, no lock error.

Each process starts, takes, renews, fills, releases and ends probes through the product's own ledger, stores
predictions, and asks an Optuna study in the same database. It keeps a journal of what the ledger
acknowledged. The journals are compared with the database at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import sqlite3
import tempfile
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import create_engine, make_url, text

from benchmarks.soak_journals import Journal, check_load, figures
from benchmarks.soak_record import SoakRecord
from benchmarks.soak_worker import Worker
from storage import open_storage
from tuner.domain.errors import TunerError
from tuner.domain.ledger import ProbeRecord

POSTGRES = "PACELINE_TEST_POSTGRES_URL"


NUM_PROCESSES = 8
#: For starting and for the last operation; on a machine that others keep busy, minutes.
_GRACE_SECONDS = 600


def _work(url: str, number: int, seed: int, seconds: float, answers: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open_storage(url) as storage:
        worker = Worker(storage, number, seed)
        worker.work(seconds)
    answers.put((number, worker.journal))


def run_load(record: SoakRecord) -> None:
    """Loads SQLite, then PostgreSQL for as long where the environment names a server."""
    with tempfile.TemporaryDirectory(prefix="soak-load-") as folder:
        path = Path(folder) / "study.db"
        server = os.environ.get(POSTGRES)
        _load(record, "sqlite", f"sqlite:///{path}", record.seconds)
        with closing(sqlite3.connect(path)) as connection:
            answer = connection.execute("PRAGMA integrity_check").fetchall()
        if answer != [("ok",)]:
            record.breaks("the database passes its integrity check", database="sqlite", answer=answer)
        if server:
            with postgres_database(server) as url:
                _load(record, "postgresql", url, record.seconds)


def _load(record: SoakRecord, name: str, url: str, seconds: float) -> None:
    context = multiprocessing.get_context("spawn")
    answers = context.Queue()
    processes = [
        context.Process(target=_work, args=(url, number, record.seed, seconds, answers), daemon=True)
        for number in range(NUM_PROCESSES)
    ]
    for process in processes:
        process.start()
    found: dict[int, Journal] = {}
    deadline = record.elapsed + seconds + _GRACE_SECONDS
    while len(found) < NUM_PROCESSES and record.elapsed < deadline:
        try:
            number, journal = answers.get(timeout=2.0)
            found[number] = journal
        except Exception:
            record.progress(f"{name}, {len(found)} of {NUM_PROCESSES} processes have ended")
            if not any(process.is_alive() for process in processes) and answers.empty():
                break
    for process in processes:
        process.join(timeout=20)
        if process.is_alive():
            process.kill()
            process.join()
    if len(found) < NUM_PROCESSES:
        codes = [process.exitcode for process in processes]
        record.breaks("every process ends by itself", database=name, exit_codes=codes)
        return
    _judge(record, name, url, [found[number] for number in range(NUM_PROCESSES)], seconds)


def _judge(record: SoakRecord, name: str, url: str, journals: Sequence[Journal], seconds: float) -> None:
    probes: list[ProbeRecord] = []
    num_predictions = num_trials = 0
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with open_storage(url) as storage:
            for study in storage.ledger.studies():
                probes += storage.ledger.probes(study.study_id)
                num_predictions += len(storage.ledger.predictions(study.study_id))
                loaded = optuna.load_study(study_name=study.name, storage=storage.optuna_storage())
                num_trials += sum(trial.state.is_finished() for trial in loaded.trials)
    except TunerError as error:
        record.breaks("the database can be read", database=name, error=str(error))
        return
    for invariant, facts in check_load(journals, probes, num_predictions, num_trials):
        record.breaks(invariant, database=name, **facts)
    record.figures[name] = figures(journals, probes, seconds)
    record.counts[f"{name} operations"] = record.figures[name]["operations"]
    record.counts[f"{name} slices"] = sum(len(probe.slices) for probe in probes)


@contextmanager
def postgres_database(server: str) -> Iterator[str]:
    """A new database on a server, dropped afterwards."""
    url = make_url(server).set(drivername="postgresql+psycopg")
    name = f"paceline_soak_{uuid.uuid4().hex[:12]}"
    engine = create_engine(url, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    try:
        yield url.set(drivername="postgresql", database=name).render_as_string(hide_password=False)
    finally:
        with engine.connect() as connection:
            connection.execute(text(f"DROP DATABASE {name} WITH (FORCE)"))
        engine.dispose()
