"""A worker of the service: takes jobs from the queue, and runs each one in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from importlib.metadata import version
from pathlib import Path
from types import FrameType
from typing import IO, Protocol

from tuner.domain.errors import LeaseLostError, StorageError
from tuner.domain.job_queue import JobLease, JobState, WorkerRecord
from tuner.domain.output_file import PRIVATE
from tuner.domain.service_store import ServiceStore
from tuner.service.leased_run import ENDED, LOST, STOPPED, Order, store_log
from tuner.service.output import say
from tuner.service.takeover import open_artifacts

#: Seconds between two rounds of the worker, and between two questions for another job while none waits.
_ROUND_SECONDS = 0.1
_CLAIM_SECONDS = 1.0
#: Seconds between two signs of life in the list of workers.
_REPORT_SECONDS = 5.0
#: After an error of the database, the worker waits for so many seconds.
_OUTAGE_SECONDS = 5.0
#: If a process cannot be started, the worker waits for the first time, then for twice as long, and so on.
_BROKEN_SECONDS = (5.0, 300.0)
_COMMAND = (sys.executable, "-P", "-m", "cli", "leased-run")


@dataclass(frozen=True, kw_only=True)
class WorkerSettings:
    """Settings of a worker.

    Args:
        storage: URL of the database, which may contain a password. It is passed to the processes of jobs by
            a pipe.
        local: Local folder for workspaces, checkpoints and reports: `FOLDER/jobs/NUMBER`.
        artifacts: A folder that all workers share, or a URL of fsspec; None for the local folder alone.
        labels: Labels of the worker; it runs only jobs whose labels it has.
        slots: Number of jobs that it runs at the same time.
        attempts: A job fails after this number of attempts that ended without a word.
        lease_seconds: Duration of a lease after each renewal.
        silent_seconds: A lease is not renewed any more if the search gave no sign of life for this time.
        drain_after: Number of jobs after which the worker takes no new ones; None for no limit.
    """

    storage: str
    local: Path
    artifacts: str | None = None
    labels: tuple[str, ...] = ()
    slots: int = 1
    attempts: int = 3
    lease_seconds: float = 60.0
    silent_seconds: float = 900.0
    drain_after: int | None = None


class Running(Protocol):
    """A process that runs a job."""

    @property
    def pid(self) -> int:
        """Number of the process."""

    def poll(self) -> int | None:
        """Returns the exit code of the process; None while it runs."""

    def send_signal(self, number: int) -> None:
        """Sends the process a signal, unless it has ended."""


@dataclass(kw_only=True)
class _Job:
    """A job whose process this worker has started.

    Args:
        lease: The lease, as this worker knows it.
        process: The process.
        log: File with the output of the process.
        started_at: Time of the start, in seconds since the Unix epoch.
        is_starting: Whether the process has not renewed the lease itself yet.
    """

    lease: JobLease
    process: Running
    log: Path
    started_at: float
    is_starting: bool = True


@dataclass(kw_only=True)
class Worker:
    """Takes jobs from the queue and watches the processes that run them.

    - The worker never writes to a study. It stores a word about a job only if the process of the job died.
    - On SIGTERM or SIGINT, the processes hand their jobs back with a checkpoint, and the worker ends. On a
      second signal, it kills them and ends at once.
    - If the worker itself is killed, its processes hand their jobs back, too.

    Args:
        store: The database.
        settings: Settings of the worker.
        start: Starts the process of a job.
        clock: Returns the time in seconds since the Unix epoch.
    """

    store: ServiceStore
    settings: WorkerSettings
    start: Callable[[Order], Running] = field(default=lambda order: start_process(order))
    clock: Callable[[], float] = time.time
    name: str = field(default_factory=lambda: worker_name())

    def __post_init__(self) -> None:
        settings = self.settings
        self._artifacts = open_artifacts(settings.artifacts, settings.local, attempt=0)
        self._jobs: list[_Job] = []
        self._started_at = self.clock()
        self._num_taken = 0
        self._num_signals = 0
        self._draining = False
        self._claim_at = self._report_at = 0.0
        #: Until then, leases may have expired only because the database could not be reached.
        self._cautious_until = 0.0
        self._broken_seconds = _BROKEN_SECONDS[0]

    def run(self) -> None:
        """Takes and watches jobs until the worker is drained or stopped, and the last job has ended."""
        with self._signals():
            try:
                while self.round():
                    time.sleep(_ROUND_SECONDS)
            finally:
                for job in self._jobs:
                    job.process.send_signal(signal.SIGKILL)
        self._guarded(lambda: self._report(stopped=True))

    def round(self) -> bool:
        """Ends, takes and reports jobs once. Returns whether the worker has anything left to do."""
        self._jobs = [job for job in self._jobs if not self._has_ended(job)]
        now = self.clock()
        if now >= self._report_at:
            self._report_at = now + _REPORT_SECONDS
            self._guarded(self._report)
        for job in self._jobs:
            if job.is_starting and job.lease.expires_at - now < self.settings.lease_seconds / 2:
                self._guarded(partial(self._renew_starting, job))
        if self.takes_jobs and len(self._jobs) < self.settings.slots and now >= self._claim_at:
            self._claim_at = now + _CLAIM_SECONDS
            if self._guarded(self._take):
                # Others may wait, too.
                self._claim_at = now
        return self._num_signals < 2 and (self.takes_jobs or bool(self._jobs))

    @property
    def takes_jobs(self) -> bool:
        """Whether the worker takes further jobs."""
        most = self.settings.drain_after
        return not self._draining and (most is None or self._num_taken < most)

    def stop(self) -> None:
        """Takes no new jobs, and asks the processes to hand theirs back; the second call ends the worker."""
        self._num_signals += 1
        self._draining = True
        if self._num_signals == 1:
            say("stopping: the jobs of this worker are handed back; a second signal ends it at once")
            for job in self._jobs:
                job.process.send_signal(signal.SIGTERM)

    def _take(self) -> bool:
        settings = self.settings
        lease = self.store.queue.claim(
            self.name,
            labels=settings.labels,
            lease_seconds=settings.lease_seconds,
            most_failures=settings.attempts,
            expired=self.clock() >= self._cautious_until,
        )
        if lease is None:
            return False
        if self._num_signals:
            return self._hand_back(lease, STOPPED)
        self._num_taken += 1
        for job in self._jobs:
            # Its process went silent, but may still train.
            if job.lease.job_id == lease.job_id:
                job.process.send_signal(signal.SIGKILL)
        log = self._artifacts.output_folder(lease.job_id) / f"attempt-{lease.attempt}.log"
        order = Order(
            storage=settings.storage,
            lease=lease,
            lease_seconds=settings.lease_seconds,
            silent_seconds=settings.silent_seconds,
            artifacts=settings.artifacts,
            local=str(settings.local),
            log=str(log),
            parent=os.getpid(),
        )
        say(f"job {lease.job_id}: attempt {lease.attempt} starts; log: {log}")
        try:
            process = self.start(order)
        except OSError as error:
            say(f"warning: job {lease.job_id}: its process cannot be started: {error}")
            self._hand_back(lease, f"worker {self.name} could not start its process: {error.strerror}")
            self._claim_at = self.clock() + self._broken_seconds
            self._broken_seconds = min(2 * self._broken_seconds, _BROKEN_SECONDS[1])
            return False
        self._broken_seconds = _BROKEN_SECONDS[0]
        self._jobs.append(_Job(lease=lease, process=process, log=log, started_at=self.clock()))
        if self._num_signals:
            process.send_signal(signal.SIGTERM)
        return True

    def _hand_back(self, lease: JobLease, reason: str) -> bool:
        """Puts a job that was not run back into the queue. Returns false."""
        with suppress(LeaseLostError):
            self.store.queue.hand_back(lease, JobState.QUEUED, reason)
        return False

    def _renew_starting(self, job: _Job) -> bool:
        """Renews the lease of a job until its process does it: on a busy host, a start takes long."""
        queue, settings = self.store.queue, self.settings
        stored = queue.job(job.lease.job_id)
        renewed = stored.lease_expires_at is None or stored.lease_expires_at > job.lease.expires_at
        is_silent = self.clock() - job.started_at > settings.silent_seconds
        if renewed or is_silent or stored.attempt != job.lease.attempt:
            job.is_starting = False
            return False
        try:
            job.lease, _ = queue.renew(job.lease, lease_seconds=settings.lease_seconds)
        except LeaseLostError:
            job.is_starting = False
        return job.is_starting

    def _has_ended(self, job: _Job) -> bool:
        code = job.process.poll()
        if code is None:
            return False
        words = {ENDED: "has ended or was handed back", LOST: "was taken by another worker"}
        if code in words:
            say(f"job {job.lease.job_id}: attempt {job.lease.attempt} {words[code]}")
        elif code == -signal.SIGTERM and self._num_signals:
            # It was stopped before it could hand the job back itself, and has done nothing.
            self._guarded(lambda: self._hand_back(job.lease, STOPPED))
        else:
            self._guarded(lambda: self._give_up(job, code))
        self._claim_at = 0.0
        return True

    def _give_up(self, job: _Job, code: int) -> bool:
        """Stores that the process of a job died, and lets the lease expire, so that the job is taken over."""
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        words = f"the process of attempt {job.lease.attempt} {how}"
        say(f"job {job.lease.job_id}: {words}; see {job.log}")
        queue = self.store.queue
        try:
            queue.add_event(job.lease, "warning", words)
            store_log(queue, job.lease, job.log)
            queue.renew(job.lease, lease_seconds=0.0)
        except LeaseLostError:
            # The process died after it had stored the end of the job.
            return False
        return True

    def _report(self, *, stopped: bool = False) -> bool:
        now = self.clock()
        record = WorkerRecord(
            name=self.name,
            version=version("paceline"),
            labels=self.settings.labels,
            slots=self.settings.slots,
            draining=self._draining,
            started_at=self._started_at,
            seen_at=now,
            stopped_at=now if stopped else None,
        )
        if self.store.queue.report_worker(record) and not self._draining:
            self._draining = True
            say("draining: this worker takes no new jobs and ends after its last one")
        self._end_lost()
        return True

    def _end_lost(self) -> None:
        """Kills processes whose jobs other workers have taken. They may not store anything any more."""
        for job in self._jobs:
            stored = self.store.queue.job(job.lease.job_id)
            if stored.attempt != job.lease.attempt:
                say(f"job {stored.job_id}: attempt {stored.attempt} has replaced {job.lease.attempt}")
                job.process.send_signal(signal.SIGKILL)

    def _guarded(self, operation: Callable[[], bool]) -> bool:
        """Calls an operation on the database; after an error, the worker waits and carries on."""
        started = self.clock()
        try:
            result = operation()
        except StorageError as error:
            say(f"warning: {error}; the worker tries again in {_OUTAGE_SECONDS:g} s")
            self._claim_at = self._report_at = self.clock() + _OUTAGE_SECONDS
            self._cautious_until = self.clock() + self.settings.lease_seconds
            return False
        if self.clock() - started > self.settings.lease_seconds / 2:
            # Leases are renewed four times as often, so a shorter outage lets none expire.
            self._cautious_until = self.clock() + self.settings.lease_seconds
        return result

    @contextmanager
    def _signals(self) -> Iterator[None]:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self.stop()
            if self._num_signals > 1:
                # The worker may wait for the database.
                raise KeyboardInterrupt

        numbers = (signal.SIGTERM, signal.SIGINT)
        before = [signal.signal(number, stop) for number in numbers]
        try:
            yield
        finally:
            for number, handler in zip(numbers, before, strict=True):
                signal.signal(number, handler)


def worker_name() -> str:
    """Returns a unique name of a worker: host, process and a random part."""
    return f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:6]}"


def start_process(order: Order, command: Sequence[str] = _COMMAND) -> Running:
    """Starts the process of a job, whose output goes to its log.

    The order goes through a pipe, because others can read command lines and environments. The process is the
    leader of a new session, so that Ctrl-C in a terminal reaches only the worker.
    """
    log = Path(order.log)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {name: value for name, value in os.environ.items() if name != "PACELINE_STORAGE"}
    with _opened_log(log) as file:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
    assert process.stdin is not None
    with process.stdin as pipe:
        pipe.write(json.dumps(order.to_dict()).encode())
    return process


def _opened_log(path: Path) -> IO[bytes]:
    return open(path, "ab", opener=lambda name, flags: os.open(name, flags, PRIVATE))
