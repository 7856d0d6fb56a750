"""Runs one submitted job in a process of its own, under the lease of a worker."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from types import FrameType
from typing import Any, Protocol

from tuner.domain.errors import DatabaseUnavailableError, LeaseLostError, StorageError, TunerError
from tuner.domain.job_progress import JobProgress
from tuner.domain.job_queue import (
    FileKind,
    JobLease,
    JobRecord,
    JobState,
    Request,
    Usage,
)
from tuner.domain.recommendation import Recommendation
from tuner.domain.remote_slices import TrainerStore
from tuner.domain.service_store import JobQueue, ServiceStore
from tuner.probes import Prober
from tuner.search.events import Listener, SearchEvent
from tuner.search.spans import Span
from tuner.search.state import read_state
from tuner.service.artifacts import Artifacts
from tuner.service.attempt import Attempt
from tuner.service.confirming import confirmation_states
from tuner.service.console import PlainConsole
from tuner.service.job_progress import ProgressWatch, total_of, usage_of
from tuner.service.opening import OpenedJob, StudyStore, open_job
from tuner.service.output import say
from tuner.service.run import RunOptions, run_job
from tuner.service.takeover import open_artifacts, restore, synced
from tuner.service.trainers import prober_maker
from tuner.service.workspace import materialize

#: Number of bytes at the end of the log that are stored in the database.
LOG_BYTES = 200_000
#: Exit code of the process of a job that has ended, or was handed back; and of one that lost its lease.
ENDED, LOST = 0, 75
#: Reason of a job in the queue whose worker was stopped.
STOPPED = "handed back by its worker, which was stopped; the next worker continues it"
#: Seconds between two reports of progress.
_REPORT_SECONDS = 3.0
#: After a loss of the lease or a search that hangs, the process may take so many seconds to stop its slices.
_STOP_SECONDS = 60.0
#: Seconds before a job is handed back after a fault of the database, or if another process holds a probe.
_PAUSE_SECONDS = 5.0
_REPORT_SUFFIXES = frozenset({".html", ".md", ".json", ".csv"})
_MOST_REPORT_BYTES = 64 * 2**20


class RunStore(ServiceStore, StudyStore, TrainerStore, Protocol):
    """A database with the queue and the studies, such as `storage.Storage`."""


@dataclass(frozen=True, kw_only=True)
class Order:
    """What a worker asks the process of a job to do. It is passed as JSON through the standard input.

    Args:
        storage: URL of the database, which may contain a password.
        lease: The lease of the worker.
        lease_seconds: Duration of a lease after each renewal.
        silent_seconds: The lease is not renewed any more if the search gave no sign of life for this time.
        artifacts: Shared folder or URL for the files of jobs; None for the local folder.
        local: Local folder of the worker.
        log: File that the output of the process goes to.
        parent: Process number of the worker.
    """

    storage: str
    lease: JobLease
    lease_seconds: float
    silent_seconds: float
    artifacts: str | None
    local: str
    log: str
    parent: int

    def place(self) -> Artifacts:
        """Returns the place of the files of the job."""
        return open_artifacts(self.artifacts, Path(self.local), attempt=self.lease.attempt)

    @property
    def folder(self) -> Path:
        """Folder of the job on this host, with its workspace, checkpoints and reports."""
        return self.place().output_folder(self.lease.job_id)

    def to_dict(self) -> dict[str, Any]:
        """Returns the order as a dictionary that can be written as JSON."""
        return asdict(self)

    @staticmethod
    def of(data: dict[str, Any]) -> Order:
        """Returns the order in a dictionary that `to_dict` made."""
        return Order(**{**data, "lease": JobLease(**data["lease"])})


class LeaseHolder:
    """Renews the lease of a job in a thread, stores the progress, and interrupts the search when asked to.

    Args:
        queue: The queue.
        order: The order of the worker.
        watch: The progress of the search.
        clock: Returns the time in seconds since the Unix epoch.
    """

    def __init__(
        self, queue: JobQueue, order: Order, watch: ProgressWatch, clock: Callable[[], float] = time.time
    ) -> None:
        self._queue, self._order, self._watch, self._clock = queue, order, watch, clock
        self._ended = threading.Event()
        self._interrupted = False
        self.request = Request.NONE
        self.is_lost = False
        self._thread = threading.Thread(target=self._run, daemon=True, name="lease")

    def start(self) -> None:
        """Starts to renew the lease. SIGTERM and requests then raise `KeyboardInterrupt` once."""
        signal.signal(signal.SIGTERM, self._interrupt)
        self._thread.start()

    def stop(self) -> None:
        """Ends the renewals; later signals are ignored, so that the end of the job can be stored."""
        self._interrupted = True
        self._ended.set()
        self._thread.join(timeout=2 * _REPORT_SECONDS)

    @property
    def may_save(self) -> bool:
        """Whether slices may save a checkpoint before the process ends: not after the loss of the lease."""
        return not self.is_lost and self.request is not Request.CANCEL

    def renew(self) -> None:
        """Renews the lease and stores the progress; asks the search to stop if the lease is lost.

        Raises:
            StorageError: The database cannot be written.
        """
        try:
            _, request = self._queue.renew(
                self._order.lease,
                lease_seconds=self._order.lease_seconds,
                progress=_plain(self._watch.progress()),
                usage=self._watch.usage(),
            )
        except LeaseLostError:
            self.is_lost = True
            return
        if request is not Request.NONE:
            self.request = request

    def _run(self) -> None:
        pause = min(_REPORT_SECONDS, self._order.lease_seconds / 4)
        while not self._ended.wait(pause):
            silent = self._clock() - self._watch.alive_at
            if silent > self._order.silent_seconds:
                self._give_up(f"the search gave no sign of life for {silent:.0f} s")
                return
            # After an outage of the database, the lease may still be ours.
            with contextlib.suppress(StorageError):
                self.renew()
            if self.is_lost:
                self._give_up("another worker has taken the job")
                return
            if self.request is not Request.NONE:
                self._stop_search()

    def _stop_search(self) -> None:
        if not self._interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)

    def _give_up(self, words: str) -> None:
        """Stops the search, and ends the process if it does not stop; the lease is not renewed any more."""
        self.is_lost = True
        say(f"{words}; this process ends its slices and stores nothing more")
        self._stop_search()
        if not self._ended.wait(_STOP_SECONDS):
            os._exit(LOST)

    def _interrupt(self, _number: int, _frame: FrameType | None) -> None:
        if not self._interrupted:
            self._interrupted = True
            raise KeyboardInterrupt


def run_leased(store: RunStore, order: Order) -> int:
    """Runs a submitted job until it ends, is handed back, or its lease is lost.

    Args:
        store: The database.
        order: The order of the worker.

    Returns:
        `ENDED` or `LOST`.

    Raises:
        StorageError: The database cannot be written, so the end of the job could not be stored.
    """
    queue, lease = store.queue, order.lease
    watch = ProgressWatch(attempt=lease.attempt)
    holder = LeaseHolder(queue, order, watch)
    job = queue.job(lease.job_id)
    study_ids: list[int] = [] if job.study_id is None else [job.study_id]
    opened: OpenedJob | None = None
    interruption: StorageError | None = None
    ending: _Ending | None = None
    try:
        holder.start()
        with store.fenced(lease):
            listen = _listener(queue, lease, watch)
            opened = _opened(store, order, job, study_ids, watch, holder)
            options = _options(job, order.folder)
            run_job(opened, store, options, listen, make_prober=_prober_maker(store, order, listen))
        ending = _Ending(state=JobState.SUCCEEDED, exit_code=0, reason="")
    except KeyboardInterrupt:
        # The end is stored below, when the frames of the interrupted call are gone.
        pass
    except (LeaseLostError, DatabaseUnavailableError) as error:
        # Another attempt continues the job if its lease is still ours, and this one does not count as failed.
        interruption = error
    except TunerError as error:
        ending = _Ending(state=JobState.FAILED, exit_code=error.exit_code, reason=str(error))
    except OSError as error:
        say(traceback.format_exc())
        ending = _Ending(state=JobState.FAILED, exit_code=StorageError.exit_code, reason=str(error))
    except (Exception, SystemExit) as error:
        say(traceback.format_exc())
        words = f"internal error: {type(error).__name__}; the log of the job has the details"
        ending = _Ending(state=JobState.FAILED, exit_code=1, reason=words)
    finally:
        holder.stop()
    if ending is None and interruption is None:
        # An interrupted write may hold the lock of the database until its connection is released.
        gc.collect()
        ending = _interrupted(holder, job, queue)
    # The last progress has no running slices any more.
    holder.renew()
    if holder.is_lost:
        return LOST
    if interruption is not None and holder.request is not Request.NONE:
        # A request to cancel or pause counts more.
        ending = _interrupted(holder, job, queue)
    elif interruption is not None:
        time.sleep(_PAUSE_SECONDS)
        reason = f"{interruption}. The job has no fault: the next attempt continues it"
        ending = _Ending(state=JobState.QUEUED, exit_code=None, reason=reason)
    assert ending is not None
    try:
        _store_ending(store, order, ending, _used(store, opened, study_ids))
    except LeaseLostError:
        return LOST
    return ENDED


@dataclass(frozen=True, kw_only=True)
class _Ending:
    """How the run of a job ended. `exit_code` is None if the job is handed back."""

    state: JobState
    exit_code: int | None
    reason: str


def _interrupted(holder: LeaseHolder, job: JobRecord, queue: JobQueue) -> _Ending:
    with contextlib.suppress(TunerError):
        # The request may have come with the signal.
        holder.renew()
    if holder.request is Request.CANCEL:
        reason = queue.job(job.job_id).reason
        return _Ending(state=JobState.CANCELLED, exit_code=130, reason=reason)
    if holder.request is Request.PAUSE:
        return _Ending(
            state=JobState.PAUSED, exit_code=None, reason="paused; it continues when it is resumed"
        )
    return _Ending(state=JobState.QUEUED, exit_code=None, reason=STOPPED)


def _store_ending(store: RunStore, order: Order, ending: _Ending, usage: Usage | None) -> None:
    queue, lease = store.queue, order.lease
    if ending.exit_code is not None:
        store_reports(queue, lease, order.folder)
    store_log(queue, lease, Path(order.log))
    if ending.exit_code is None:
        queue.hand_back(lease, ending.state, ending.reason, usage)
    else:
        queue.finish(lease, ending.state, exit_code=ending.exit_code, reason=ending.reason, usage=usage)


def _prober_maker(store: RunStore, order: Order, listen: Listener) -> Callable[[OpenedJob], Prober]:
    """Returns the function that makes probers. They store the files of probes if artifacts are at a URL."""
    make_prober = prober_maker(store.remote_slices, order.lease)
    is_remote = order.artifacts is not None and "://" in order.artifacts
    return synced(make_prober, order.place(), listen) if is_remote else make_prober


def _opened(
    store: RunStore,
    order: Order,
    job: JobRecord,
    study_ids: list[int],
    watch: ProgressWatch,
    holder: LeaseHolder,
) -> OpenedJob:
    """Writes the workspace of a job, and opens the job file in it."""
    queue = store.queue
    path = materialize(queue, job, order.folder / "workspace")
    opened = open_job(path)
    if opened.job.recording() is not None:
        watch.is_real = False

    def set_study(study_id: int) -> None:
        queue.set_study(order.lease, study_id)
        study_ids.append(study_id)

    attempt = Attempt(
        job_id=job.job_id,
        number=order.lease.attempt,
        study_id=job.study_id,
        set_study=set_study,
        restore=lambda study, listen: restore(order.place(), store.ledger, study, order.folder, listen),
        lost=_lost_slices(job) if watch.is_real else {},
        saves=lambda: holder.may_save,
        watch=watch.watch,
        watch_training=watch.watch_training,
    )
    return replace(opened, attempt=attempt)


def _options(job: JobRecord, folder: Path) -> RunOptions:
    names = ("sampler", "verify", "parallel", "confirm", "past_studies", "explore")
    return RunOptions(
        output=folder, restart_lost=True, **{name: job.options[name] for name in names if name in job.options}
    )


def _lost_slices(job: JobRecord) -> dict[tuple[float, int], Span]:
    """Returns from when to when each slice ran that the silent worker of an earlier attempt reported."""
    progress = job.progress
    if "attempt" not in progress:
        return {}
    attempt, until = int(progress["attempt"]), float(progress["updated_at"])
    return {
        (attempt, int(s["probe"])): (min(float(s["started_at"]), until), until) for s in progress["slices"]
    }


def _listener(queue: JobQueue, lease: JobLease, watch: ProgressWatch) -> Listener:
    """Returns a listener that writes events to the log, and stores them in the database."""
    console = PlainConsole(say)

    def listen(event: SearchEvent) -> None:
        watch.listen(event)
        console.show(event)
        if event.kind != "progress":
            data: dict[str, Any] = {"spent_seconds": event.spent_seconds}
            if event.probe_id is not None:
                data["probe"] = event.probe_id
            queue.add_event(lease, event.kind, event.text, data)

    return listen


def _used(store: RunStore, opened: OpenedJob | None, study_ids: list[int]) -> Usage | None:
    """Returns what the job has used in all attempts, from the slices in its studies."""
    if opened is None or not study_ids:
        return None
    ledger = store.ledger
    # No prediction is made from this state, so the size of the training set does not matter.
    states = [read_state(opened.job, opened.cluster, ledger.probes(study_ids[0]), epoch_samples=1)]
    given = ledger.recommendations(study_ids[0])
    if given and opened.job.recording() is None:
        states += confirmation_states(ledger, opened, Recommendation.from_dict(given[-1].recommendation))
    return total_of([usage_of(state) for state in states])


def store_reports(queue: JobQueue, lease: JobLease, folder: Path) -> None:
    """Stores the files of the report of a job in the database."""
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        if path.suffix in _REPORT_SUFFIXES and path.is_file() and path.stat().st_size <= _MOST_REPORT_BYTES:
            queue.add_job_file(lease, FileKind.REPORT, path.name, path.read_bytes())


def store_log(queue: JobQueue, lease: JobLease, log: Path) -> None:
    """Stores the end of the log of an attempt in the database."""
    try:
        with log.open("rb") as file:
            file.seek(max(log.stat().st_size - LOG_BYTES, 0))
            content = file.read()
    except OSError:
        return
    queue.add_job_file(lease, FileKind.LOG, f"attempt-{lease.attempt}.log", content)


def _plain(progress: JobProgress) -> dict[str, Any]:
    return {**progress}


def main_of_process(open_store: Callable[[str], contextlib.AbstractContextManager[RunStore]]) -> int:
    """Reads the order of the worker from the standard input, and runs the job."""
    import json

    from tuner.domain.parent_death import die_with_parent

    # Until the order is read, nothing was started: the default action ends the process.
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    order = Order.of(json.loads(sys.stdin.read()))
    # If the worker is killed, this process hands the job back as on SIGTERM.
    die_with_parent(order.parent, signal.SIGTERM)
    with open_store(order.storage) as store:
        # Paths in the parameters of a Workload are relative to the working folder. If the folder cannot be
        # made, the job fails with the reason as soon as it writes its workspace.
        with contextlib.suppress(TunerError, OSError):
            workspace = order.folder / "workspace"
            workspace.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.chdir(workspace)
        return run_leased(store, order)
