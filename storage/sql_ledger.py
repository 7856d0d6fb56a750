"""The ledger in a SQL database: stores studies, probes, predictions, model fits and recommendations."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from sqlalchemy import ColumnElement, Connection, Engine, Row, Table, and_, case, func, insert, select, update

from search_spaces import Configuration
from storage import probe_tables, rows, tables
from storage.plain_data import PlainData
from storage.retries import Retries, retried
from storage.tables import fits, probes, recommendations, studies
from storage.transactions import reading, writing
from tuner.domain.errors import LeaseLostError, StorageError
from tuner.domain.ledger import (
    FitRecord,
    Lease,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
    free_name,
)
from tuner.domain.measurement import Measurement, Outcome, Purpose

_Record = TypeVar("_Record")
_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


class SqlLedger:
    """A `Ledger` that stores its records in a SQL database.

    Several threads and processes may use one database at the same time. A lease is a worker's right to run a
    probe. One atomic SQL statement takes a lease, and one checks it, so that two workers never have a lease
    on the same probe. The tables must exist; `open_storage` creates them.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        clock: Returns the time in seconds since the Unix epoch. The clocks of the hosts that use the database
            must not differ by more than a fraction of the duration of a lease.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._retries = retries or Retries(engine.url)
        #: Called in each transaction that writes; it raises an error if this process may not write any more.
        self.fence: Callable[[Connection], None] | None = None
        self._read_studies: dict[int, StudyRecord] = {}
        self._read_probes: dict[int, list[ProbeRecord]] = {}
        self._unstored: list[tuple[int, Measurement]] = []

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with writing(self._engine) as connection:
            if self.fence is not None:
                self.fence(connection)
            yield connection

    def open_study(
        self, job_name: str, fingerprint: str, job: Mapping[str, Any], *, fresh: bool = False
    ) -> StudyRecord:
        wanted = {"job_name": job_name, "fingerprint": fingerprint}
        values = {**wanted, "job": dict(job), "created_at": self._clock()}

        def opened(again: bool) -> StudyRecord:
            same = _same_row(studies, values if fresh else wanted)
            newest = select(studies.c.study_id).where(same).order_by(studies.c.study_id.desc()).limit(1)
            with self._writing() as connection:
                _one_opener(connection)
                may_exist = again or not fresh
                study_id = connection.execute(newest).scalar_one_or_none() if may_exist else None
                if study_id is None:
                    name = free_name(job_name, set(connection.execute(select(studies.c.name)).scalars()))
                    study_id = _inserted(connection, studies, {**values, "name": name})
                else:
                    changed = update(studies).where(studies.c.study_id == study_id)
                    connection.execute(changed.values(job=dict(job)))
                found = connection.execute(select(studies).where(studies.c.study_id == study_id))
                return rows.study(found.one())

        study = self._retries.repeat(opened)
        self._read_studies[study.study_id] = study
        return study

    @retried
    def change_fingerprint(self, study_id: int, fingerprint: str) -> None:
        with self._writing() as connection:
            _need_studies(connection, {study_id})
            changed = update(studies).where(studies.c.study_id == study_id)
            connection.execute(changed.values(fingerprint=fingerprint))

    @retried
    def studies(self) -> list[StudyRecord]:
        with reading(self._engine) as connection:
            found = connection.execute(select(studies).order_by(studies.c.study_id))
            return [rows.study(row) for row in found]

    def start_probe(
        self,
        study_id: int,
        configuration: Configuration,
        purpose: Purpose,
        *,
        trial_number: int | None,
        owner: str,
        lease_seconds: float,
    ) -> Lease:
        values = {
            "study_id": study_id,
            "configuration": configuration.key,
            "purpose": str(purpose),
            "trial_number": trial_number,
            "reason": "",
            "lease_owner": owner,
            "attempt": 1,
            "created_at": self._clock(),
        }

        def started(again: bool) -> Lease:
            with self._writing() as connection:
                _need_studies(connection, {study_id})
                expires_at = self._clock() + lease_seconds
                extended = update(probes).where(_same_row(probes, values)).values(lease_expires_at=expires_at)
                same = extended.returning(probes.c.probe_id)
                probe_id = connection.execute(same).scalars().first() if again else None
                if probe_id is None:
                    new = {**values, "outcome": str(Outcome.PAUSED), "lease_expires_at": expires_at}
                    probe_id = _inserted(connection, probes, new)
            return Lease(probe_id=probe_id, owner=owner, attempt=1, expires_at=expires_at)

        return self._retries.repeat(started)

    @retried
    def take_probe(self, probe_id: int, *, owner: str, lease_seconds: float) -> Lease:
        with self._writing() as connection:
            # Read the clock inside the transaction, because waiting for the write lock takes time.
            now = self._clock()
            return probe_tables.take(connection, probe_id, owner, now, now + lease_seconds)

    @retried
    def renew(self, lease: Lease, *, lease_seconds: float) -> Lease:
        with self._writing() as connection:
            expires_at = self._clock() + lease_seconds
            probe_tables.must_change(connection, lease, lease_expires_at=expires_at)
        return Lease(probe_id=lease.probe_id, owner=lease.owner, attempt=lease.attempt, expires_at=expires_at)

    def append_slice(self, lease: Lease, measurement: Measurement) -> None:
        if measurement.outcome is Outcome.RUNNING:
            raise ValueError(f"a running slice cannot be stored: probe {lease.probe_id} is still running")
        try:
            self._append(lease, measurement)
        except LeaseLostError:
            raise
        except BaseException:
            # Ctrl-C during an outage, too.
            self._unstored.append((lease.probe_id, measurement))
            raise

    @retried
    def release(self, lease: Lease) -> None:
        with self._writing() as connection:
            probe_tables.give_back(connection, lease)

    @retried
    def end_probe(self, probe_id: int, outcome: Outcome, reason: str) -> None:
        if outcome.can_continue:
            raise ValueError(f"a probe cannot end with the outcome {outcome}")
        with self._writing() as connection:
            probe_tables.end(connection, probe_id, outcome, reason)

    @retried
    def probes(self, study_id: int, known: Sequence[ProbeRecord] = ()) -> list[ProbeRecord]:
        known = known or self._read_probes.get(study_id, ())
        with reading(self._engine) as connection:
            found = probe_tables.load(connection, probe_tables.of_study(study_id), self._clock(), known)
        self._read_probes[study_id] = found
        return found

    @retried
    def outlines(self, study_id: int) -> list[ProbeRecord]:
        condition = probe_tables.of_study(study_id)
        with reading(self._engine) as connection:
            return probe_tables.load(connection, condition, self._clock(), with_curves=False)

    @retried
    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        points = tables.curve_points.c
        best = func.max(points.value) if maximize else func.min(points.value)
        wanted = select(best).where(points.study_id == study_id, points.samples > 0)
        with reading(self._engine) as connection:
            value: float | None = connection.execute(wanted).scalar_one()
        return value

    def add_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        if predictions:
            self._keep(tables.predictions, [rows.prediction_row(record) for record in predictions])

    def predictions(self, study_id: int) -> list[PredictionRecord]:
        return self._stored(tables.predictions, study_id, rows.prediction)

    def add_fit(self, fit: FitRecord) -> None:
        self._keep(fits, [rows.fit_row(fit)])

    @retried
    def past_fits(self, fingerprint: str) -> list[FitRecord]:
        newest = select(func.max(fits.c.fit_id)).group_by(fits.c.study_id, fits.c.model)
        first = case((fits.c.fingerprint == fingerprint, 0), else_=1)
        statement = select(fits).where(fits.c.fit_id.in_(newest)).order_by(first, fits.c.fit_id.desc())
        with reading(self._engine) as connection:
            return [rows.fit(row) for row in connection.execute(statement)]

    def add_recommendation(self, recommendation: RecommendationRecord) -> None:
        values = {
            "study_id": recommendation.study_id,
            "created_at": float(recommendation.created_at),
            "recommendation": recommendation.recommendation,
        }
        self._keep(recommendations, [values])

    def recommendations(self, study_id: int) -> list[RecommendationRecord]:
        return self._stored(recommendations, study_id, rows.recommendation)

    def unsaved(self, *, everything: bool) -> list[tuple[StudyRecord, list[ProbeRecord]]]:
        """Returns studies with their probes, including the slices that could not be stored.

        The records are read from the database. If it cannot be read, they are those that were read before.

        Args:
            everything: Whether to return all studies; otherwise, only probes with a slice that is not stored.
        """
        with contextlib.suppress(StorageError):
            self._read_studies |= {study.study_id: study for study in self.studies()} if everything else {}
            for study_id in self._read_studies:
                self.probes(study_id, self._read_probes.get(study_id, ()))
        missing: dict[int, list[Measurement]] = {}
        for probe_id, measurement in self._unstored:
            missing.setdefault(probe_id, []).append(measurement)
        found = []
        for study_id, study in self._read_studies.items():
            records = []
            for record in self._read_probes.get(study_id, ()):
                # A slice may be stored although its confirmation was lost, or Ctrl-C came just after it.
                lost = [m for m in missing.get(record.probe_id, []) if m not in record.slices[-1:]]
                if everything or lost:
                    records.append(_with_slices(record, lost))
            if everything or records:
                found.append((study, records))
        return found

    @property
    def has_unstored(self) -> bool:
        """Whether the measurement of a slice could not be stored."""
        return bool(self._unstored)

    def _append(self, lease: Lease, measurement: Measurement) -> None:
        earlier: list[int] = []

        def store(_again: bool) -> None:
            with self._writing() as connection:
                num_stored = probe_tables.num_stored(connection, lease)
                if earlier and num_stored > earlier[0]:
                    return  # The previous attempt was committed, and the connection was cut only afterwards.
                earlier.append(num_stored)
                probe_tables.append(connection, lease, measurement, self._clock())

        self._retries.repeat(store)

    def _keep(self, table: Table, values: list[dict[str, Any]]) -> None:
        def stored(again: bool) -> None:
            with self._writing() as connection:
                _need_studies(connection, {row["study_id"] for row in values})
                same = select(func.count()).select_from(table).where(_same_row(table, values[0]))
                if not again or not connection.execute(same).scalar_one():
                    connection.execute(insert(table), values)

        self._retries.repeat(stored)

    @retried
    def _stored(self, table: Table, study_id: int, record: Callable[[Row[Any]], _Record]) -> list[_Record]:
        oldest_first = next(iter(table.primary_key))
        statement = select(table).where(table.c.study_id == study_id).order_by(oldest_first)
        with reading(self._engine) as connection:
            return [record(row) for row in connection.execute(statement)]


def _with_slices(record: ProbeRecord, missing: list[Measurement]) -> ProbeRecord:
    if not missing:
        return record
    outcome = missing[-1].outcome
    reason = record.reason if outcome.can_continue else missing[-1].error or ""
    return replace(record, slices=(*record.slices, *missing), outcome=outcome, reason=reason)


def _same_row(table: Table, values: Mapping[str, Any]) -> ColumnElement[bool]:
    """Returns the SQL condition that a row has the given values, apart from columns of JSON data."""
    plain = {name: value for name, value in values.items() if not isinstance(table.c[name].type, PlainData)}
    return and_(*(table.c[name] == value for name, value in plain.items()))


def _inserted(connection: Connection, table: Table, values: dict[str, Any]) -> int:
    key = connection.execute(insert(table).values(values)).inserted_primary_key
    assert key is not None
    return int(key[0])


def _one_opener(connection: Connection) -> None:
    # Two workers that start at the same time must open one study, not two. SQLite needs no further lock: the
    # transaction has the write lock already.
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql("LOCK TABLE paceline_studies IN SHARE ROW EXCLUSIVE MODE")


def _need_studies(connection: Connection, study_ids: set[int]) -> None:
    found = set(
        connection.execute(select(studies.c.study_id).where(studies.c.study_id.in_(study_ids))).scalars()
    )
    missing = sorted(study_ids - found)
    if missing:
        raise StorageError(f"there is no study {missing[0]} in this ledger; open the study first")
