"""Several processes on one study database for minutes: no lost slice, no lease held by two, no lock error.

Each process starts, takes, renews, fills, releases and ends probes through the product's own ledger, stores
predictions, and asks an Optuna study in the same database. It keeps a journal of what the ledger
acknowledged. The journals are compared with the database at the end.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import sqlite3
import tempfile
import time
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import optuna
from sqlalchemy import create_engine, make_url, text

from benchmarks.soak_record import SoakRecord, quantile
from search_spaces import Configuration
from storage import Storage, open_storage
from tuner.errors import LeaseLostError, TunerError
from tuner.ledger import Lease, PredictionRecord, ProbeRecord
from tuner.measurement import CurvePoint, Measurement, Outcome, Purpose

POSTGRES = "PACELINE_TEST_POSTGRES_URL"
NUM_PROCESSES = 8
#: Short studies keep reading as expensive as it is in real ones.
_STUDY_SECONDS = 5.0
#: Some leases run out while they are held, so that others take the probe.
_LEASE_SECONDS = (0.05, 0.3, 30.0)
_MOST_OPERATIONS = 1_000_000
_CONFIGURATION = Configuration(batch_size=8)


def _lists() -> defaultdict[Any, list[Any]]:
    return defaultdict(list)


@dataclass(kw_only=True)
class Holding:
    """A lease that a process held, by its own account; seconds since the epoch.

    Args:
        probe_id: The probe.
        attempt: Counts how often the probe was taken.
        owner: The process.
        asked_at: When the lease was asked for.
        since: When the process knew that it has it.
        until: Up to when it was sure to have it: it expired, or was given back.
    """

    probe_id: int
    attempt: int
    owner: str
    asked_at: float
    since: float
    until: float


@dataclass(kw_only=True)
class Journal:
    """What one process did.

    Args:
        holdings: Its leases.
        slices: Probe to the tokens of the slices that the ledger acknowledged, in order.
        num_predictions: Predictions that the ledger acknowledged.
        num_trials: Optuna trials told.
        seconds: Operation to how long each call took.
        refusals: Calls refused with `LeaseLostError`.
        errors: Every other error that reached the caller.
    """

    holdings: list[Holding] = field(default_factory=list)
    slices: dict[int, list[int]] = field(default_factory=_lists)
    num_predictions: int = 0
    num_trials: int = 0
    seconds: dict[str, list[float]] = field(default_factory=_lists)
    refusals: int = 0
    errors: list[str] = field(default_factory=list)


class Worker:
    """One process's share of the load.

    Args:
        storage: The open database.
        number: Which process it is.
        seed: Of its draws.
    """

    def __init__(self, storage: Storage, number: int, seed: int) -> None:
        self._storage, self._ledger = storage, storage.ledger
        self._name, self._token = f"worker-{number}", number * 10**9
        self._rng = random.Random(f"{seed}-{number}")
        self._held: dict[int, tuple[Lease, Holding]] = {}
        self._known: list[int] = []
        self._study_id, self._period = -1, -1
        self._optuna: optuna.Study | None = None
        self.journal = Journal()

    def work(self, seconds: float) -> None:
        """Carries out random operations until the time is up."""
        started = time.monotonic()
        choices: list[tuple[Callable[[], None], int]] = [
            (self._start, 3), (self._take, 4), (self._renew, 3), (self._append, 8), (self._release, 2),
            (self._end, 1), (self._predict, 2), (self._read, 1), (self._trial, 1),
        ]  # fmt: skip
        operations, weights = zip(*choices, strict=True)
        for _ in range(_MOST_OPERATIONS):
            if time.monotonic() - started >= seconds:
                break
            self._call("open", self._open)
            operation = self._rng.choices(operations, weights)[0]
            self._call(operation.__name__.strip("_"), operation)

    def _call(self, name: str, operation: Callable[[], None]) -> None:
        started = time.monotonic()
        try:
            operation()
        except LeaseLostError:
            self.journal.refusals += 1
        except Exception as error:
            self.journal.errors.append(f"{name}: {type(error).__name__}: {error}"[:500])
        if name != "open":
            self.journal.seconds[name].append(time.monotonic() - started)

    def _open(self) -> None:
        period = int(time.time() // _STUDY_SECONDS)
        if self._period == period:
            return
        for probe_id in list(self._held):
            self._give_back(probe_id)
        study = self._ledger.open_study("load", f"period-{period}", {})
        self._study_id, self._period, self._known = study.study_id, period, []
        with self._storage.guarded():
            self._optuna = optuna.create_study(
                study_name=study.name, storage=self._storage.optuna_storage(), load_if_exists=True
            )

    def _start(self) -> None:
        asked = time.time()
        lease = self._ledger.start_probe(
            self._study_id,
            _CONFIGURATION,
            Purpose.TRAINING,
            trial_number=None,
            owner=self._name,
            lease_seconds=self._rng.choice(_LEASE_SECONDS),
        )
        self._hold(lease, asked)

    def _take(self) -> None:
        probe_id = self._rng.choice(self._known) if self._known else None
        if probe_id is None or probe_id in self._held:
            return
        asked = time.time()
        lease = self._ledger.take_probe(
            probe_id, owner=self._name, lease_seconds=self._rng.choice(_LEASE_SECONDS)
        )
        self._hold(lease, asked)

    def _hold(self, lease: Lease, asked: float) -> None:
        holding = Holding(
            probe_id=lease.probe_id,
            attempt=lease.attempt,
            owner=self._name,
            asked_at=asked,
            since=time.time(),
            until=lease.expires_at,
        )
        self._held[lease.probe_id] = lease, holding
        self.journal.holdings.append(holding)

    def _renew(self) -> None:
        for lease, holding in self._one_held():
            with self._or_lost(lease, holding):
                renewed = self._ledger.renew(lease, lease_seconds=self._rng.choice(_LEASE_SECONDS))
                # A lease that had run out may have been free in between: the new one starts now.
                now = time.time()
                later = replace(holding, asked_at=now, since=now, until=renewed.expires_at)
                holding.until = min(holding.until, now)
                self._held[lease.probe_id] = renewed, later
                self.journal.holdings.append(later)

    def _append(self) -> None:
        for lease, holding in self._one_held():
            self._token += 1
            with self._or_lost(lease, holding):
                self._ledger.append_slice(lease, _slice(self._token))
                self.journal.slices[lease.probe_id].append(self._token)

    def _release(self) -> None:
        for lease, _ in self._one_held():
            self._give_back(lease.probe_id)

    def _give_back(self, probe_id: int) -> None:
        lease, holding = self._held.pop(probe_id)
        holding.until = min(holding.until, time.time())
        self._ledger.release(lease)

    def _end(self) -> None:
        for lease, holding in self._one_held():
            with self._or_lost(lease, holding):
                # An end needs no lease: nobody else may take the probe while this one ends it.
                self._ledger.renew(lease, lease_seconds=max(_LEASE_SECONDS))
                del self._held[lease.probe_id]
                holding.until = min(holding.until, time.time())
                self._ledger.end_probe(lease.probe_id, Outcome.STOPPED, "enough")

    def _predict(self) -> None:
        count = self._rng.randint(1, 20)
        self._ledger.add_predictions([_prediction(self._study_id) for _ in range(count)])
        self.journal.num_predictions += count

    def _read(self) -> None:
        self._known = [p.probe_id for p in self._ledger.probes(self._study_id) if p.outcome.can_continue]

    def _trial(self) -> None:
        assert self._optuna is not None
        with self._storage.guarded():
            trial = self._optuna.ask()
            trial.suggest_float("learning_rate", 1e-4, 1.0, log=True)
            trial.report(0.5, 1)
            self._optuna.tell(trial, 0.5)
        self.journal.num_trials += 1

    def _one_held(self) -> Iterator[tuple[Lease, Holding]]:
        if self._held:
            yield self._held[self._rng.choice(list(self._held))]

    @contextmanager
    def _or_lost(self, lease: Lease, holding: Holding) -> Iterator[None]:
        """A refusal ends the holding; one that comes while the lease holds is an error."""
        try:
            yield
        except LeaseLostError as error:
            if time.time() < holding.until:
                self.journal.errors.append(f"refused while the lease holds: {error}")
            self._held.pop(lease.probe_id, None)
            holding.until = min(holding.until, time.time())
            raise


def _slice(token: int) -> Measurement:
    points = range(token % 20)
    return Measurement(
        configuration=_CONFIGURATION,
        purpose=Purpose.TRAINING,
        outcome=Outcome.PAUSED,
        curve=tuple(CurvePoint(training_seconds=1.0, step=token, samples=i, value=0.5) for i in points),
        step=token,
    )


def _prediction(study_id: int) -> PredictionRecord:
    return PredictionRecord(
        study_id=study_id,
        configuration=_CONFIGURATION,
        made_at=time.time(),
        quantiles={0.5: 1.0},
        dollars={0.5: 1.0},
        probability_of_reaching=0.5,
        num_slices=0,
        seconds_known=0.0,
    )


def _work(url: str, number: int, seed: int, seconds: float, answers: Any) -> None:
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with open_storage(url) as storage:
        worker = Worker(storage, number, seed)
        worker.work(seconds)
    answers.put((number, worker.journal))


def check_load(
    journals: Sequence[Journal], probes: Sequence[ProbeRecord], num_predictions: int, num_trials: int
) -> list[tuple[str, dict[str, Any]]]:
    """Every broken invariant: its name, and facts.

    Args:
        journals: Of each process.
        probes: All that the database holds.
        num_predictions: Predictions in the database.
        num_trials: Finished Optuna trials in the database.
    """
    broken = [("no error reaches the user", {"error": error}) for j in journals for error in j.errors]
    stored = {probe.probe_id: [m.step for m in probe.slices] for probe in probes}
    for number, journal in enumerate(journals):
        for probe_id, tokens in journal.slices.items():
            found = [token for token in stored.get(probe_id, []) if token // 10**9 == number]
            if found != tokens:
                facts = {"probe": probe_id, "worker": number, "acknowledged": tokens, "stored": found}
                broken.append(("every acknowledged slice is stored once, in order", facts))
    acknowledged = sum(len(tokens) for journal in journals for tokens in journal.slices.values())
    if (total := sum(map(len, stored.values()))) != acknowledged:
        facts = {"stored": total, "acknowledged": acknowledged}
        broken.append(("no slice is stored that was refused", facts))
    for probe in probes:
        for measurement in probe.slices:
            if len(measurement.curve) != measurement.step % 20:
                facts = {"probe": probe.probe_id, "slice": measurement.step, "points": len(measurement.curve)}
                broken.append(("every slice is whole", facts))
    broken += [("no lease is held by two", facts) for facts in shared_leases(journals)]
    told = sum(journal.num_predictions for journal in journals)
    if told != num_predictions:
        broken.append(("no prediction is lost", {"acknowledged": told, "stored": num_predictions}))
    if (told := sum(journal.num_trials for journal in journals)) != num_trials:
        broken.append(("no trial is lost", {"acknowledged": told, "stored": num_trials}))
    return broken


def shared_leases(journals: Sequence[Journal]) -> Iterator[dict[str, Any]]:
    """Pairs of holdings of one probe by two processes at one time."""
    by_probe: dict[int, list[Holding]] = defaultdict(list)
    for journal in journals:
        for holding in journal.holdings:
            by_probe[holding.probe_id].append(holding)
    for holdings in by_probe.values():
        owners: dict[int, str] = {}
        holdings.sort(key=lambda holding: holding.since)
        last = holdings[0]
        for holding in holdings:
            first = owners.setdefault(holding.attempt, holding.owner)
            if first != holding.owner:
                named = [first, holding.owner]
                yield {"probe": holding.probe_id, "attempt": holding.attempt, "owners": named}
            # Asked for and granted while somebody else was sure to have it.
            if holding.owner != last.owner and last.since < holding.asked_at and holding.since < last.until:
                yield {"first": vars(last), "second": vars(holding)}
            if holding.until >= last.until:
                last = holding


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
            with _postgres_database(server) as url:
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
    deadline = record.elapsed + seconds + 120
    while len(found) < NUM_PROCESSES and record.elapsed < deadline:
        try:
            number, journal = answers.get(timeout=2.0)
            found[number] = journal
        except Exception:
            record.progress(f"{name}, {NUM_PROCESSES} processes")
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


def figures(journals: Sequence[Journal], probes: Sequence[ProbeRecord], seconds: float) -> dict[str, Any]:
    """Operations per second and latencies."""
    merged: dict[str, list[float]] = defaultdict(list)
    for journal in journals:
        for name, values in journal.seconds.items():
            merged[name] += values
    every = [value for values in merged.values() for value in values]
    return {
        "processes": len(journals),
        "operations": len(every),
        "operations_per_second": round(len(every) / seconds, 1),
        "probes": len(probes),
        "leases": sum(len(journal.holdings) for journal in journals),
        "leases_refused": sum(journal.refusals for journal in journals),
        "seconds": {name: _latency(values) for name, values in sorted({"all": every, **merged}.items())},
    }


def _latency(values: Sequence[float]) -> Mapping[str, float | int | None]:
    return {
        "count": len(values),
        "median": quantile(values, 0.5),
        "p99": quantile(values, 0.99),
        "max": quantile(values, 1.0),
    }


@contextmanager
def _postgres_database(server: str) -> Iterator[str]:
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
