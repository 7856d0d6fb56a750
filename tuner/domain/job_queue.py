"""Records of the service: submitted jobs, workers, access tokens; and the interface of their database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from tuner.domain.errors import TunerError


class JobState(StrEnum):
    """States of a submitted job."""

    #: The price is above the limit, so somebody has to approve the job before it can run.
    AWAITING_APPROVAL = "awaiting_approval"
    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    #: The search ended with a recommendation.
    SUCCEEDED = "succeeded"
    #: The search ended without a recommendation, or could not run. `exit_code` and `reason` say why.
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether the state is final."""
        return self in (JobState.SUCCEEDED, JobState.FAILED, JobState.CANCELLED)


class Request(StrEnum):
    """What the worker that runs a job has been asked to do with it."""

    NONE = ""
    PAUSE = "pause"
    CANCEL = "cancel"


class Role(StrEnum):
    """Rights of an access token. Each role includes the rights of those before it."""

    READ = "read"
    SUBMIT = "submit"
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether this role has all rights of another role."""
        roles = list(Role)
        return roles.index(self) >= roles.index(other)


class FileKind(StrEnum):
    """Kinds of files that belong to a submitted job."""

    WORKSPACE = "workspace"
    REPORT = "report"
    LOG = "log"


class QueueError(TunerError):
    """A request to the queue cannot be carried out; the message says why and what to do."""

    exit_code = 2


class NotFoundError(QueueError):
    """There is no job, token, worker or file with the given identifier."""


class ConflictError(QueueError):
    """The request does not fit the present state, for example pausing a job that has ended."""


class QuotaError(QueueError):
    """A job would exceed the quota of its token."""


@dataclass(frozen=True, kw_only=True)
class Usage:
    """Resources that a job uses, or may use at most.

    Args:
        seconds: Wall-clock seconds of probes.
        node_hours: Node hours.
        dollars: Dollars; 0 if nodes have no price.
    """

    seconds: float = 0.0
    node_hours: float = 0.0
    dollars: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Quota:
    """Limits of all jobs of one token; None where there is no limit.

    Args:
        jobs: Maximum number of jobs that have not ended.
        node_hours: Maximum node hours of all jobs together. A job that has not ended counts with the largest
            number that it may use.
        dollars: Maximum dollars of all jobs together, counted in the same way.
        stored_bytes: Maximum size of all uploaded files and files of jobs (reports, logs) together.
    """

    jobs: int | None = None
    node_hours: float | None = None
    dollars: float | None = None
    stored_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class CleanedFiles:
    """What a clean-up has removed.

    Args:
        num_files: Number of files.
        num_bytes: Size of the files together.
    """

    num_files: int = 0
    num_bytes: int = 0


@dataclass(frozen=True, kw_only=True)
class NewJob:
    """A job to add to the queue.

    Args:
        name: Name of the job, from its job file.
        job_file: Text of the job file (TOML).
        options: Options of the run, such as `parallel` and `verify` (fields of `RunOptions`).
        files: Maps each path of the workspace, relative to the job file, to the SHA-256 of its content.
        labels: Labels that a worker must have to run the job, such as `gpu`.
        priority: Jobs with a higher number run first.
        state: `QUEUED`, or `AWAITING_APPROVAL`.
        plan: The plan that was shown to the user: lines of text and the price.
        limit: Largest usage that the budget of the job allows; None where the budget sets no limit.
        token_id: Token of the submitter; None for the local command line.
        idempotency_key: Key that the client chose, so that a repeated request adds no second job.
        request_digest: SHA-256 of the request, to detect another request with the same key.
    """

    name: str
    job_file: str
    options: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    labels: Sequence[str] = ()
    priority: int = 0
    state: JobState = JobState.QUEUED
    plan: Mapping[str, Any] = field(default_factory=dict)
    limit: Mapping[str, float | None] = field(default_factory=dict)
    token_id: int | None = None
    idempotency_key: str | None = None
    request_digest: str = ""


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """A submitted job as the database stores it. The fields of `NewJob` have the same meaning.

    Args:
        job_id: Number of the job.
        request: What the worker has been asked to do with the job.
        reason: Sentence that says why the job is in its state; empty if there is nothing to say.
        exit_code: Exit code that `paceline run` would have had; None before the end.
        created_at: Time of the submission. All times are seconds since the Unix epoch.
        started_at: Time of the first start; None before.
        finished_at: Time of the end; None before.
        approved_by: Name of the token that approved the job; empty if no approval was needed or given.
        attempt: Number of times that a worker took the job.
        failures: Number of attempts that ended without a word, such as by a kill of the worker.
        worker: Name of the worker that has the lease; empty if none has.
        lease_expires_at: Time at which the lease ends if it is not renewed; None without a lease.
        study_id: Number of the study; None before the first worker has opened it.
        progress: Newest progress, as the worker reported it: a `tuner.domain.job_progress.JobProgress`.
        usage: What the job has used so far.
        num_events: Number of events of the job.
    """

    job_id: int
    name: str
    job_file: str
    options: Mapping[str, Any]
    labels: tuple[str, ...]
    priority: int
    state: JobState
    request: Request
    reason: str
    exit_code: int | None
    plan: Mapping[str, Any]
    limit: Mapping[str, float | None]
    token_id: int | None
    created_at: float
    started_at: float | None
    finished_at: float | None
    approved_by: str
    attempt: int
    failures: int
    worker: str
    lease_expires_at: float | None
    study_id: int | None
    progress: Mapping[str, Any]
    usage: Usage
    num_events: int

    @property
    def current_progress(self) -> Mapping[str, Any]:
        """The progress without what ended with an earlier attempt: running slices and predicted finish."""
        same_attempt = self.progress.get("attempt", self.attempt) == self.attempt
        if self.state is JobState.RUNNING and same_attempt:
            return self.progress
        return {name: value for name, value in self.progress.items() if name not in ("slices", "finish")}


@dataclass(frozen=True, kw_only=True)
class JobLease:
    """The right of one worker to run a job until a given time.

    Args:
        job_id: Number of the job.
        attempt: Number of the attempt. Only the newest attempt may change the job.
        worker: Name of the worker.
        expires_at: Time at which the lease ends, seconds since the Unix epoch.
    """

    job_id: int
    attempt: int
    worker: str
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class JobEvent:
    """One event of a job, such as a decision of the search, a warning or a change of state.

    Args:
        number: Number of the event among those of its job, from 1.
        kind: `state`, or the kind of a `SearchEvent`.
        text: One line of text.
        created_at: Seconds since the Unix epoch.
        data: Further values, such as the probe.
    """

    number: int
    kind: str
    text: str
    created_at: float
    data: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class WorkerRecord:
    """A worker that has announced itself.

    Args:
        name: Unique name: host, process and a random part.
        version: Version of Paceline.
        labels: Labels of the worker; it runs only jobs whose labels it has.
        slots: Number of jobs that it runs at the same time.
        draining: Whether the worker takes no new jobs.
        started_at: Seconds since the Unix epoch.
        seen_at: Time of its last sign of life.
        stopped_at: Time when it stopped; None while it runs.
        jobs: Numbers of the jobs that it runs.
    """

    name: str
    version: str
    labels: tuple[str, ...]
    slots: int
    draining: bool
    started_at: float
    seen_at: float
    stopped_at: float | None
    jobs: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class TokenRecord:
    """An access token, without its secret.

    Args:
        token_id: Number of the token.
        name: Name that the administrator gave it.
        role: Rights of the token.
        quota: Limits of the jobs of the token.
        created_at: Seconds since the Unix epoch.
        expires_at: Time after which the token is refused; None if it does not expire.
        revoked_at: Time when it was revoked; None if it was not.
        last_used_at: Time of its last use, to the minute; None before the first.
    """

    token_id: int
    name: str
    role: Role
    quota: Quota
    created_at: float
    expires_at: float | None
    revoked_at: float | None
    last_used_at: float | None


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """One entry of the audit log: who did what, when and from where.

    Args:
        audit_id: Number of the entry.
        created_at: Seconds since the Unix epoch.
        token: Name of the token; `local` for the command line on the server.
        action: What was done, such as `job.submit`.
        target: What it was done to, such as `job 7`.
        address: Network address of the client; empty for the command line.
        detail: Further values.
    """

    audit_id: int
    created_at: float
    token: str
    action: str
    target: str
    address: str
    detail: Mapping[str, Any]


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
        self, worker: str, *, labels: Sequence[str], lease_seconds: float, most_failures: int
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
