"""Records of the service: submitted jobs, workers, access tokens, and the audit log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

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
