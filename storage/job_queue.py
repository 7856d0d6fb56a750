"""The queue of submitted jobs in a SQL database, with their events and files, and the list of workers."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sqlalchemy import Connection, Engine, and_, func, insert, select, update

from storage.job_rows import (
    NO_LEASE,
    check_quota,
    ending_of_expired,
    fence,
    job_columns,
    job_record,
    job_with_key,
    label_text,
    labels_of,
    next_job,
    state_words,
    update_under,
    used_columns,
)
from storage.retries import Retries, retried
from storage.rows import clean_text
from storage.service_tables import files, job_events, job_files, jobs, tokens, workers
from storage.stored_files import (
    check_stored_bytes,
    remove_job_files,
    remove_unused,
    store_file,
    store_upload,
)
from storage.transactions import reading, writing
from tuner.domain.job_queue import (
    CleanedFiles,
    ConflictError,
    FileKind,
    JobEvent,
    JobLease,
    JobRecord,
    JobState,
    NewJob,
    NotFoundError,
    Quota,
    Request,
    Usage,
    WorkerRecord,
)


class SqlJobQueue:
    """Stores the queue of jobs in a SQL database; implements `tuner.domain.service_store.JobQueue`.

    Many servers and workers can use one PostgreSQL database; SQLite serves the processes of one host.

    Args:
        engine: Engine of a SQLite or PostgreSQL database.
        clock: Returns the time in seconds since the Unix epoch. The clocks of the hosts must not differ by
            more than a fraction of the duration of a lease.
        retries: Repeats operations while the database is locked or cannot be reached.
    """

    def __init__(
        self, engine: Engine, clock: Callable[[], float] = time.time, retries: Retries | None = None
    ) -> None:
        self._engine = engine
        self._clock = clock
        self._retries = retries or Retries(engine.url)

    def submit(self, job: NewJob, *, quota: Quota | None = None) -> tuple[JobRecord, bool]:
        if job.idempotency_key is None:
            # The job may be stored although the confirmation is lost.
            job = replace(job, idempotency_key=uuid.uuid4().hex)
        return self._retries.repeat(lambda _again: self._submitted(job, quota))

    def _submitted(self, job: NewJob, quota: Quota | None) -> tuple[JobRecord, bool]:
        now = self._clock()
        with writing(self._engine) as connection:
            if job.token_id is not None:
                # Serialize the submissions of a token, for its quota and its keys.
                token = select(tokens.c.token_id).where(tokens.c.token_id == job.token_id)
                connection.execute(token.with_for_update())
            found = job_with_key(connection, job)
            if found is not None:
                return found, False
            if job.token_id is not None and quota is not None:
                check_quota(connection, job, quota)
            row = connection.execute(insert(jobs).values(**job_columns(job, now)).returning(jobs)).one()
            for path, digest in job.files.items():
                stored = select(files.c.digest).where(files.c.digest == digest)
                # The lock makes a clean-up of unused files wait.
                locked = stored.with_for_update(read=True, key_share=True)
                if connection.execute(locked).first() is None:
                    raise NotFoundError(
                        f"the content of {path} was not uploaded; upload it, then submit again"
                    )
                values = {"kind": str(FileKind.WORKSPACE), "path": path, "digest": digest}
                connection.execute(insert(job_files).values(job_id=row.job_id, **values))
            if job.token_id is not None and quota is not None:
                check_stored_bytes(connection, job.token_id, quota)
            self._note(connection, row.job_id, f"{job.name} was submitted: {state_words(job.state)}")
            return self._read(connection, row.job_id), True

    @retried
    def job(self, job_id: int) -> JobRecord:
        with reading(self._engine) as connection:
            return self._read(connection, job_id)

    @retried
    def jobs(
        self,
        *,
        states: Sequence[JobState] = (),
        name: str | None = None,
        token_id: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        wanted = select(jobs).order_by(jobs.c.job_id.desc()).limit(limit)
        if states:
            wanted = wanted.where(jobs.c.state.in_([str(state) for state in states]))
        if name:
            wanted = wanted.where(jobs.c.name.icontains(name, autoescape=True))
        if token_id is not None:
            wanted = wanted.where(jobs.c.token_id == token_id)
        if before is not None:
            wanted = wanted.where(jobs.c.job_id < before)
        with reading(self._engine) as connection:
            return [job_record(row) for row in connection.execute(wanted)]

    @retried
    def count_jobs(self) -> dict[JobState, int]:
        with reading(self._engine) as connection:
            counted = connection.execute(select(jobs.c.state, func.count()).group_by(jobs.c.state))
            return {JobState(row.state): row[1] for row in counted}

    def approve(self, job_id: int, *, by: str) -> JobRecord:
        def change(job: JobRecord) -> dict[str, Any]:
            if job.state is not JobState.AWAITING_APPROVAL:
                raise ConflictError(f"job {job_id} does not await approval: it is {state_words(job.state)}")
            return {"state": str(JobState.QUEUED), "reason": "", "approved_by": by}

        return self._changed(job_id, change, f"approved by {by}: queued")

    def cancel(self, job_id: int, reason: str) -> JobRecord:
        def change(job: JobRecord) -> dict[str, Any]:
            if job.state.has_ended:
                raise ConflictError(f"job {job_id} has ended: it is {state_words(job.state)}")
            if self._has_worker(job):
                return {"request": str(Request.CANCEL), "reason": reason}
            ended = {"state": str(JobState.CANCELLED), "finished_at": self._clock()}
            return {**ended, "reason": reason, "request": "", **NO_LEASE}

        def words(job: JobRecord) -> str:
            return f"{'asked to end' if self._has_worker(job) else 'cancelled'}: {reason}"

        return self._changed(job_id, change, words)

    def pause(self, job_id: int) -> JobRecord:
        def change(job: JobRecord) -> dict[str, Any]:
            is_open = job.state is JobState.QUEUED or job.state is JobState.RUNNING
            if is_open and not self._has_worker(job) and job.request is not Request.CANCEL:
                return {"state": str(JobState.PAUSED), "request": "", **NO_LEASE}
            if job.state is JobState.RUNNING and job.request is not Request.CANCEL:
                return {"request": str(Request.PAUSE)}
            raise ConflictError(
                f"job {job_id} is {state_words(job.state)}; only a queued or running job can be paused"
            )

        return self._changed(job_id, change, "asked to pause")

    def resume(self, job_id: int) -> JobRecord:
        def change(job: JobRecord) -> dict[str, Any]:
            if job.state is JobState.PAUSED:
                return {"state": str(JobState.QUEUED), "reason": ""}
            if job.state is JobState.RUNNING and job.request is Request.PAUSE:
                return {"request": str(Request.NONE)}
            raise ConflictError(f"job {job_id} is {state_words(job.state)}; only a paused job can be resumed")

        return self._changed(job_id, change, "resumed")

    def _has_worker(self, job: JobRecord) -> bool:
        """Whether a job runs under a lease that has not expired. Otherwise nobody may carry out a request."""
        return job.state is JobState.RUNNING and (job.lease_expires_at or 0.0) > self._clock()

    def set_priority(self, job_id: int, priority: int) -> JobRecord:
        def change(job: JobRecord) -> dict[str, Any]:
            if job.state.has_ended:
                raise ConflictError(f"job {job_id} has ended: it is {state_words(job.state)}")
            return {"priority": priority}

        return self._changed(job_id, change, f"priority {priority}")

    def claim(
        self,
        worker: str,
        *,
        labels: Sequence[str],
        lease_seconds: float,
        most_failures: int,
        expired: bool = True,
    ) -> JobLease | None:
        tried: JobLease | None = None

        def claimed(again: bool) -> JobLease | None:
            nonlocal tried
            while True:
                now = self._clock()
                with writing(self._engine) as connection:
                    if again and tried is not None and self._is_held(connection, tried):
                        return tried
                    # After an outage, healthy workers could not renew their leases.
                    row = next_job(connection, labels, now, expired=expired and not again)
                    if row is None:
                        return None
                    job = job_record(row)
                    failures = self._expire(connection, job, most_failures, now)
                    if failures is None:
                        continue
                    tried = JobLease(
                        job_id=job.job_id,
                        attempt=job.attempt + 1,
                        worker=worker,
                        expires_at=now + lease_seconds,
                    )
                    values = {
                        "state": str(JobState.RUNNING),
                        "attempt": tried.attempt,
                        "failures": failures,
                        "worker": worker,
                        "lease_expires_at": tried.expires_at,
                        "started_at": job.started_at or now,
                        # What happened before is in the events.
                        "reason": "",
                    }
                    connection.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(**values))
                    self._note(connection, job.job_id, f"attempt {tried.attempt} started on {worker}")
                    return tried

        return self._retries.repeat(claimed)

    def _is_held(self, connection: Connection, lease: JobLease) -> bool:
        """Whether a job runs under a lease, in its newest attempt."""
        job = self._read(connection, lease.job_id)
        return job.state is JobState.RUNNING and (job.attempt, job.worker) == (lease.attempt, lease.worker)

    def _expire(self, connection: Connection, job: JobRecord, most_failures: int, now: float) -> int | None:
        """Counts the failure of a job whose lease has expired, and returns the number of its failures.

        Returns None if the job ends with this failure.
        """
        if job.state is not JobState.RUNNING:
            return job.failures
        failures = job.failures + 1
        self._note(connection, job.job_id, f"worker {job.worker} went silent in attempt {job.attempt}")
        ending = ending_of_expired(job, failures, most_failures, now)
        if ending is None:
            return failures
        values = {**ending, "failures": failures, "request": "", **NO_LEASE}
        connection.execute(update(jobs).where(jobs.c.job_id == job.job_id).values(**values))
        self._note(connection, job.job_id, f"{ending['state']}: {ending['reason']}")
        return None

    @retried
    def renew(
        self,
        lease: JobLease,
        *,
        lease_seconds: float,
        progress: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
    ) -> tuple[JobLease, Request]:
        expires_at = self._clock() + lease_seconds
        values: dict[str, Any] = {"lease_expires_at": expires_at, **used_columns(usage)}
        if progress is not None:
            values["progress"] = dict(progress)
        with writing(self._engine) as connection:
            request = update_under(connection, lease, values)
        renewed = JobLease(
            job_id=lease.job_id, attempt=lease.attempt, worker=lease.worker, expires_at=expires_at
        )
        return renewed, Request(request)

    @retried
    def set_study(self, lease: JobLease, study_id: int) -> None:
        with writing(self._engine) as connection:
            update_under(connection, lease, {"study_id": study_id})

    @retried
    def hand_back(self, lease: JobLease, state: JobState, reason: str, usage: Usage | None = None) -> None:
        values = {
            "state": str(state),
            "reason": clean_text(reason),
            "request": "",
            **used_columns(usage),
            **NO_LEASE,
        }
        with writing(self._engine) as connection:
            update_under(connection, lease, values)
            self._note(connection, lease.job_id, f"{state_words(state)}: {reason}")

    @retried
    def finish(
        self, lease: JobLease, state: JobState, *, exit_code: int, reason: str, usage: Usage | None = None
    ) -> None:
        values = {
            "state": str(state),
            "exit_code": exit_code,
            "reason": clean_text(reason),
            "request": "",
            "finished_at": self._clock(),
            **used_columns(usage),
            **NO_LEASE,
        }
        with writing(self._engine) as connection:
            update_under(connection, lease, values)
            self._note(
                connection, lease.job_id, f"{state_words(state)}: {reason}" if reason else state_words(state)
            )

    @retried
    def add_event(
        self, job: int | JobLease, kind: str, text: str, data: Mapping[str, Any] | None = None
    ) -> JobEvent:
        with writing(self._engine) as connection:
            return self._add_event(connection, _fenced(connection, job), kind, text, data)

    @retried
    def events(self, job_id: int, *, after: int = 0, limit: int = 500) -> list[JobEvent]:
        wanted = (
            select(*(job_events.c[name] for name in _EVENT_COLUMNS))
            .where(job_events.c.job_id == job_id, job_events.c.number > after)
            .order_by(job_events.c.number)
            .limit(limit)
        )
        with reading(self._engine) as connection:
            return [JobEvent(**row._mapping) for row in connection.execute(wanted)]

    @retried
    def put_file(self, content: bytes, *, token_id: int | None = None, quota: Quota | None = None) -> str:
        with writing(self._engine) as connection:
            if token_id is None:
                return store_file(connection, content, self._clock())
            return store_upload(connection, content, self._clock(), token_id, quota or Quota())

    @retried
    def clean_files(self, *, unused_before: float, ended_before: float | None = None) -> CleanedFiles:
        if ended_before is not None:
            with writing(self._engine) as connection:
                remove_job_files(connection, ended_before)
        num_files = num_bytes = 0
        while True:
            with writing(self._engine) as connection:
                removed = remove_unused(connection, unused_before=unused_before)
            if removed.num_files == 0:
                return CleanedFiles(num_files=num_files, num_bytes=num_bytes)
            num_files, num_bytes = num_files + removed.num_files, num_bytes + removed.num_bytes

    @retried
    def file(self, digest: str) -> bytes:
        with reading(self._engine) as connection:
            content = connection.execute(select(files.c.content).where(files.c.digest == digest)).scalar()
        if content is None:
            raise NotFoundError(f"there is no file with the SHA-256 {digest}")
        return bytes(content)

    @retried
    def add_job_file(self, job: int | JobLease, kind: FileKind, path: str, content: bytes) -> str:
        with writing(self._engine) as connection:
            job_id = _fenced(connection, job)
            digest = store_file(connection, content, self._clock())
            key = {"job_id": job_id, "kind": str(kind), "path": path}
            same = and_(*(job_files.c[name] == value for name, value in key.items()))
            if connection.execute(update(job_files).where(same).values(digest=digest)).rowcount == 0:
                connection.execute(insert(job_files).values(**key, digest=digest))
        return digest

    @retried
    def job_files(self, job_id: int, kind: FileKind) -> dict[str, str]:
        wanted = (
            select(job_files.c.path, job_files.c.digest)
            .where(job_files.c.job_id == job_id, job_files.c.kind == str(kind))
            .order_by(job_files.c.path)
        )
        with reading(self._engine) as connection:
            return {row.path: row.digest for row in connection.execute(wanted)}

    @retried
    def report_worker(self, worker: WorkerRecord) -> bool:
        values = {
            "version": worker.version,
            "labels": label_text(worker.labels),
            "slots": worker.slots,
            "started_at": worker.started_at,
            "seen_at": worker.seen_at,
            "stopped_at": worker.stopped_at,
        }
        with writing(self._engine) as connection:
            known = update(workers).where(workers.c.name == worker.name).values(**values)
            asked = connection.execute(known.returning(workers.c.draining)).scalar()
            if asked is None:
                values |= {"name": worker.name, "draining": worker.draining}
                connection.execute(insert(workers).values(**values))
        return bool(asked)

    @retried
    def drain_worker(self, name: str) -> None:
        with writing(self._engine) as connection:
            drained = update(workers).where(workers.c.name == name).values(draining=True)
            if connection.execute(drained).rowcount == 0:
                raise NotFoundError(f"there is no worker {name}")

    @retried
    def workers(self, *, seen_since: float = 0.0) -> list[WorkerRecord]:
        recent = workers.c.seen_at >= seen_since
        with reading(self._engine) as connection:
            running = select(jobs.c.worker, jobs.c.job_id).where(jobs.c.state == str(JobState.RUNNING))
            of_worker: dict[str, list[int]] = {}
            for name, job_id in connection.execute(running):
                of_worker.setdefault(name, []).append(job_id)
            found = connection.execute(select(workers).where(recent).order_by(workers.c.started_at.desc()))
            return [
                WorkerRecord(
                    **{**row._mapping, "labels": labels_of(row.labels)},
                    jobs=tuple(of_worker.get(row.name, ())),
                )
                for row in found
            ]

    def _read(self, connection: Connection, job_id: int, *, lock: bool = False) -> JobRecord:
        wanted = select(jobs).where(jobs.c.job_id == job_id)
        row = connection.execute(wanted.with_for_update() if lock else wanted).one_or_none()
        if row is None:
            raise NotFoundError(f"there is no job {job_id}")
        return job_record(row)

    def _changed(
        self,
        job_id: int,
        change: Callable[[JobRecord], dict[str, Any]],
        words: str | Callable[[JobRecord], str],
    ) -> JobRecord:
        """Changes a job as a function of its present record, adds an event, and returns the new record."""
        tried: tuple[int, str] | None = None

        def changed(again: bool) -> JobRecord:
            nonlocal tried
            with writing(self._engine) as connection:
                job = self._read(connection, job_id, lock=True)
                if again and tried is not None and _has_event(connection, job_id, *tried):
                    return job
                values = change(job)
                connection.execute(update(jobs).where(jobs.c.job_id == job_id).values(**values))
                text = words if isinstance(words, str) else words(job)
                tried = self._note(connection, job_id, text).number, clean_text(text)
                return self._read(connection, job_id)

        return self._retries.repeat(changed)

    def _note(self, connection: Connection, job_id: int, text: str) -> JobEvent:
        return self._add_event(connection, job_id, "state", text, None)

    def _add_event(
        self, connection: Connection, job_id: int, kind: str, text: str, data: Mapping[str, Any] | None
    ) -> JobEvent:
        # Counting in the row of the job locks it, so numbers follow the order of the commits.
        counted = update(jobs).where(jobs.c.job_id == job_id).values(num_events=jobs.c.num_events + 1)
        number = connection.execute(counted.returning(jobs.c.num_events)).scalar()
        if number is None:
            raise NotFoundError(f"there is no job {job_id}")
        event = JobEvent(
            number=number, kind=kind, text=clean_text(text), created_at=self._clock(), data=dict(data or {})
        )
        values = {name: getattr(event, name) for name in _EVENT_COLUMNS}
        connection.execute(insert(job_events).values(job_id=job_id, **values))
        return event


def _has_event(connection: Connection, job_id: int, number: int, text: str) -> bool:
    """Whether a job has an event with a number and a text."""
    wanted = select(job_events.c.text).where(job_events.c.job_id == job_id, job_events.c.number == number)
    return connection.execute(wanted).scalar() == text


_EVENT_COLUMNS = ("number", "kind", "text", "created_at", "data")


def _fenced(connection: Connection, job: int | JobLease) -> int:
    """Returns the number of a job; given a lease, checks that it belongs to the newest attempt."""
    if isinstance(job, int):
        return job
    fence(connection, job)
    return job.job_id
