"""Protocols of the database of the service: the queue of jobs, the access tokens, and both together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

from tuner.domain.job_queue import (
    AuditRecord,
    CleanedFiles,
    FileKind,
    JobEvent,
    JobLease,
    JobRecord,
    JobState,
    NewJob,
    Quota,
    Request,
    Role,
    TokenRecord,
    Usage,
    WorkerRecord,
)


class JobQueue(Protocol):
    """Interface of the queue of jobs, with their events and files, and of the list of workers.

    Every method is one transaction. Times are seconds since the Unix epoch, from the clock of the database
    object. All methods raise `StorageError` if the database cannot be read or written.
    """

    def submit(self, job: NewJob, *, quota: Quota = Quota()) -> tuple[JobRecord, bool]:
        """Adds a job, unless the same token has submitted one with the same idempotency key.

        Returns:
            The job, and whether it is new.

        Raises:
            ConflictError: The key was used for another request.
            QuotaError: The job would exceed the quota.
            NotFoundError: A file of the workspace was not stored with `put_file`.
        """

    def job(self, job_id: int) -> JobRecord:
        """Returns a job. Raises `NotFoundError` if there is none with this number."""

    def jobs(
        self,
        *,
        states: Sequence[JobState] = (),
        name: str | None = None,
        token_id: int | None = None,
        before: int | None = None,
        limit: int = 50,
    ) -> list[JobRecord]:
        """Returns jobs, newest first.

        Args:
            states: Only jobs in one of these states; all if empty.
            name: Only jobs whose name contains this text, in any case.
            token_id: Only jobs of this token.
            before: Only jobs with a smaller number; used to fetch the next page.
            limit: Maximum number of jobs.
        """

    def count_jobs(self) -> dict[JobState, int]:
        """Returns the number of jobs in each state that occurs."""

    def approve(self, job_id: int, *, by: str) -> JobRecord:
        """Puts a job that awaits approval into the queue. Raises `ConflictError` in another state."""

    def cancel(self, job_id: int, reason: str) -> JobRecord:
        """Ends a job, or asks the worker that runs it to end it. Raises `ConflictError` if it has ended."""

    def pause(self, job_id: int) -> JobRecord:
        """Pauses a queued job, or asks the worker that runs it to pause it; else `ConflictError`."""

    def resume(self, job_id: int) -> JobRecord:
        """Puts a paused job back into the queue, or withdraws the request to pause; else `ConflictError`."""

    def set_priority(self, job_id: int, priority: int) -> JobRecord:
        """Changes the priority of a job. Raises `ConflictError` if it has ended."""

    def claim(
        self,
        worker: str,
        *,
        labels: Sequence[str],
        lease_seconds: float,
        most_failures: int,
        expired: bool = True,
    ) -> JobLease | None:
        """Gives a worker the next job that it may run.

        This is the queued job, or the running job whose lease has expired, with the highest priority, and
        among these the oldest one. An expired job that was cancelled, paused, or has failed too often, is
        brought to its end or pause on the way.

        Args:
            worker: Name of the worker.
            labels: Labels of the worker, at most 8.
            lease_seconds: Seconds until the lease expires.
            most_failures: A job whose worker went silent this number of times is failed.
            expired: Whether jobs may be taken over whose leases have expired. After an outage of the
                database, leases have expired although their workers are healthy. A call that had to be
                repeated therefore takes over none.
        """

    def renew(
        self,
        lease: JobLease,
        *,
        lease_seconds: float,
        progress: Mapping[str, Any] | None = None,
        usage: Usage | None = None,
    ) -> tuple[JobLease, Request]:
        """Extends a lease, stores the progress, and returns what the worker has been asked to do.

        Raises:
            LeaseLostError: Another worker has taken the job, or the job is not running any more.
        """

    def set_study(self, lease: JobLease, study_id: int) -> None:
        """Stores which study belongs to the job. Raises `LeaseLostError` like `renew`."""

    def hand_back(self, lease: JobLease, state: JobState, reason: str, usage: Usage | None = None) -> None:
        """Ends a lease before the end of the job: the job is `QUEUED` or `PAUSED` again.

        Raises:
            LeaseLostError: Another worker has taken the job, or the job is not running any more.
        """

    def finish(
        self, lease: JobLease, state: JobState, *, exit_code: int, reason: str, usage: Usage | None = None
    ) -> None:
        """Ends a job. Raises `LeaseLostError` like `renew`."""

    def add_event(
        self, job: int | JobLease, kind: str, text: str, data: Mapping[str, Any] | None = None
    ) -> JobEvent:
        """Adds an event to a job, given by its number or by a lease; with a lost lease, fails as `renew`."""

    def events(self, job_id: int, *, after: int = 0, limit: int = 500) -> list[JobEvent]:
        """Returns the events of a job with a number above `after`, oldest first."""

    def put_file(self, content: bytes, *, token_id: int | None = None, quota: Quota | None = None) -> str:
        """Stores a file, unless it is stored already. Returns its SHA-256 in hexadecimal digits.

        Args:
            content: Content of the file.
            token_id: Token that uploads the file; None for the local command line.
            quota: Limits of the token.

        Raises:
            QuotaError: The files of the token would be larger than its quota.
        """

    def clean_files(self, *, unused_before: float, ended_before: float | None = None) -> CleanedFiles:
        """Removes files that no job uses. Jobs, events and studies stay.

        Args:
            unused_before: Files that were uploaded after this time stay. All times are seconds since the Unix
                epoch.
            ended_before: Also removes the files of jobs that ended before this time: workspace, reports and
                log; None removes no file of a job.
        """

    def file(self, digest: str) -> bytes:
        """Returns a stored file. Raises `NotFoundError` if there is none."""

    def add_job_file(self, job: int | JobLease, kind: FileKind, path: str, content: bytes) -> str:
        """Stores a file of a job, given as in `add_event`, and replaces one with the same path.

        Returns its SHA-256.
        """

    def job_files(self, job_id: int, kind: FileKind) -> dict[str, str]:
        """Returns the files of a job: maps each path to the SHA-256 of its content."""

    def report_worker(self, worker: WorkerRecord) -> bool:
        """Stores a sign of life of a worker; returns whether the worker has been asked to drain."""

    def drain_worker(self, name: str) -> None:
        """Asks a worker to take no new jobs. Raises `NotFoundError` if there is no such worker."""

    def workers(self, *, seen_since: float = 0.0) -> list[WorkerRecord]:
        """Returns the workers that have given a sign of life since a time, newest first."""


class Tokens(Protocol):
    """Interface of the access tokens and of the audit log."""

    def create(
        self, name: str, role: Role, *, expires_at: float | None = None, quota: Quota = Quota()
    ) -> tuple[TokenRecord, str]:
        """Creates a token. Returns its record and its text, which is not stored and cannot be read again."""

    def find(self, text: str) -> TokenRecord | None:
        """Returns the token with a given text; None if it is unknown, expired or revoked."""

    def revoke(self, token_id: int) -> TokenRecord:
        """Revokes a token. Raises `NotFoundError` if there is none with this number."""

    def tokens(self) -> list[TokenRecord]:
        """Returns all tokens, oldest first."""

    def usage(self, token_id: int) -> tuple[int, Usage]:
        """Returns the number of jobs of a token that have not ended, and what all its jobs count for."""

    def audit(
        self,
        token: str,
        action: str,
        target: str,
        *,
        address: str = "",
        detail: Mapping[str, Any] | None = None,
    ) -> None:
        """Adds an entry to the audit log."""

    def audit_log(self, *, before: int | None = None, limit: int = 100) -> list[AuditRecord]:
        """Returns entries of the audit log, newest first."""


class ServiceStore(Protocol):
    """A database of the service, such as `storage.Storage`."""

    @property
    def queue(self) -> JobQueue:
        """The queue of jobs."""

    @property
    def tokens(self) -> Tokens:
        """The access tokens."""

    @property
    def url(self) -> str:
        """URL of the database, with the password hidden."""

    def fenced(self, lease: JobLease) -> AbstractContextManager[None]:
        """Context manager in whose block the ledger stores nothing once a job has another attempt.

        A worker that was taken for dead, but was only slow, can therefore not change the study of the job.
        The ledger raises `LeaseLostError`.
        """
