"""SQL statements, conversions and checks for the rows of submitted jobs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

from sqlalchemy import ColumnElement, Connection, Row, and_, select, update

from storage.service_tables import jobs
from storage.tokens import usage_of
from tuner.domain.errors import LeaseLostError
from tuner.domain.job_queue import (
    ConflictError,
    JobLease,
    JobRecord,
    JobState,
    NewJob,
    Quota,
    QuotaError,
    Request,
    Usage,
)

NO_LEASE = {"worker": "", "lease_expires_at": None}
_MOST_LABELS = 8


def fence(connection: Connection, lease: JobLease) -> None:
    """Locks the row of a job, and checks that a lease belongs to the newest attempt.

    Raises:
        LeaseLostError: Another worker has taken the job, or the job is not running any more.
    """
    wanted = select(jobs.c.job_id).where(_under(lease)).with_for_update()
    if connection.execute(wanted).first() is None:
        raise _lost(lease)


def _under(lease: JobLease) -> ColumnElement[bool]:
    is_running = jobs.c.state == str(JobState.RUNNING)
    return and_(jobs.c.job_id == lease.job_id, jobs.c.attempt == lease.attempt, is_running)


def _lost(lease: JobLease) -> LeaseLostError:
    return LeaseLostError(
        f"worker {lease.worker} may no longer change job {lease.job_id}: another worker has taken the job "
        "since, or the job has ended"
    )


def update_under(connection: Connection, lease: JobLease, values: Mapping[str, Any]) -> str:
    """Changes a job if the lease is that of its newest attempt. Returns what the worker is asked to do."""
    changed = update(jobs).where(_under(lease)).values(**values).returning(jobs.c.request)
    request = connection.execute(changed).scalar()
    if request is None:
        raise _lost(lease)
    return str(request)


def job_columns(job: NewJob, now: float) -> dict[str, Any]:
    """Returns the column values of a new job."""
    return {
        "name": job.name,
        "job_file": job.job_file,
        "options": dict(job.options),
        "labels": label_text(job.labels),
        "priority": job.priority,
        "state": str(job.state),
        "request": "",
        "reason": "",
        "plan": dict(job.plan),
        **{f"most_{name}": job.limit.get(name) for name in ("seconds", "node_hours", "dollars")},
        **used_columns(Usage()),
        "token_id": job.token_id,
        "idempotency_key": job.idempotency_key,
        "request_digest": job.request_digest,
        "created_at": now,
        "approved_by": "",
        "attempt": 0,
        "failures": 0,
        "worker": "",
        "progress": {},
        "num_events": 0,
    }


def used_columns(usage: Usage | None) -> dict[str, float]:
    """Returns the columns for what a job has used; none if it is not known."""
    if usage is None:
        return {}
    return {
        "used_seconds": usage.seconds,
        "used_node_hours": usage.node_hours,
        "used_dollars": usage.dollars,
    }


def job_record(row: Row[Any]) -> JobRecord:
    """Converts a row of the table of jobs to a record."""
    columns = dict(row._mapping)
    for name in ("idempotency_key", "request_digest"):
        del columns[name]
    names = ("seconds", "node_hours", "dollars")
    limit = {name: columns.pop(f"most_{name}") for name in names}
    usage = Usage(**{name: columns.pop(f"used_{name}") for name in names})
    columns["labels"] = labels_of(columns["labels"])
    columns["state"] = JobState(columns["state"])
    columns["request"] = Request(columns["request"])
    return JobRecord(**columns, limit=limit, usage=usage)


def next_job(connection: Connection, labels: Sequence[str], now: float, *, expired: bool) -> Row[Any] | None:
    """Selects and locks the next job for a worker with the given labels.

    Args:
        connection: Connection in a write transaction.
        labels: Labels of the worker.
        now: The time, in seconds since the Unix epoch.
        expired: Whether jobs may be taken over whose leases have expired.
    """
    of_labels = jobs.c.labels.in_(_label_texts(labels))
    waiting = jobs.c.state == str(JobState.QUEUED)
    silent = and_(jobs.c.state == str(JobState.RUNNING), jobs.c.lease_expires_at <= now)
    found = []
    # One query for each state, so that each can use the index.
    for condition in (silent, waiting) if expired else (waiting,):
        wanted = select(jobs).where(condition, of_labels)
        wanted = wanted.order_by(jobs.c.priority.desc(), jobs.c.job_id).limit(1)
        row = connection.execute(wanted.with_for_update(skip_locked=True)).first()
        if row is not None:
            found.append(row)
    return max(found, key=lambda row: (row.priority, -row.job_id), default=None)


def ending_of_expired(job: JobRecord, failures: int, most_failures: int, now: float) -> dict[str, Any] | None:
    """Returns the changes that end a job whose lease expired; None if another worker should take it."""
    if job.request is Request.CANCEL:
        return {"state": str(JobState.CANCELLED), "reason": job.reason, "finished_at": now}
    if job.request is Request.PAUSE:
        return {"state": str(JobState.PAUSED), "reason": "paused while its worker was silent"}
    if failures >= most_failures:
        reason = (
            f"the workers of {failures} attempts went silent without a word, the last one was {job.worker}; "
            "read the events and logs of the job, correct it, then submit it again"
        )
        return {"state": str(JobState.FAILED), "reason": reason, "exit_code": 1, "finished_at": now}
    return None


def label_text(labels: Sequence[str]) -> str:
    """Returns labels as the text that the database stores, such as `,gpu,slurm,`."""
    return "".join(f",{label}" for label in sorted(set(labels))) + "," if labels else ","


def _label_texts(labels: Sequence[str]) -> list[str]:
    """Returns the texts of all sets of labels that a worker with the given labels can serve."""
    names = sorted(set(labels))[:_MOST_LABELS]
    return [label_text(some) for size in range(len(names) + 1) for some in combinations(names, size)]


def labels_of(text: str) -> tuple[str, ...]:
    """Returns the labels in a text of `label_text`."""
    return tuple(label for label in text.split(",") if label)


def state_words(state: JobState) -> str:
    """Returns the name of a state for messages, such as `awaiting approval`."""
    return str(state).replace("_", " ")


def job_with_key(connection: Connection, job: NewJob) -> JobRecord | None:
    """Returns the job that the same token submitted with the same idempotency key; None if there is none."""
    if job.idempotency_key is None:
        return None
    of_token = jobs.c.token_id.is_(None) if job.token_id is None else jobs.c.token_id == job.token_id
    wanted = select(jobs).where(of_token, jobs.c.idempotency_key == job.idempotency_key)
    row = connection.execute(wanted).first()
    if row is None:
        return None
    if row.request_digest != job.request_digest:
        raise ConflictError(
            f"the idempotency key {job.idempotency_key!r} was used for another request, which became job "
            f"{row.job_id}; choose another key for a new job"
        )
    return job_record(row)


def check_quota(connection: Connection, job: NewJob, quota: Quota) -> None:
    """Checks that the quota of a token allows a new job.

    Raises:
        QuotaError: It does not; the message says what to do.
    """
    assert job.token_id is not None
    num_jobs, usage = usage_of(connection, job.token_id)
    if quota.jobs is not None and num_jobs >= quota.jobs:
        raise QuotaError(
            f"this token may have {quota.jobs} jobs that have not ended, and has {num_jobs}; wait for one of "
            "them, or cancel one"
        )
    for name, unit in (("node_hours", "node hours"), ("dollars", "dollars")):
        allowed, used = getattr(quota, name), getattr(usage, name)
        if allowed is None:
            continue
        most = job.limit.get(name)
        if most is None:
            raise QuotaError(
                f"this token has a quota of {allowed:g} {unit}, so the job needs a limit: set "
                f"budget.{name} or budget.time in the job file"
            )
        if used + most > allowed:
            raise QuotaError(
                f"this token has a quota of {allowed:g} {unit}, of which {used:g} are used or reserved; the "
                f"job may use {most:g}. Lower its budget, or ask for a larger quota"
            )
