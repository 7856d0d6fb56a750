"""The launcher for schedulers: a backend allocates nodes; a node agent on each node runs the processes."""

from __future__ import annotations

import contextlib
import json
import secrets
import shutil
import signal
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from tuner.domain.errors import ProbeError
from tuner.domain.threads import thread_variables
from tuner.launchers.command_job import CommandJob, with_ranks
from tuner.launchers.job_folder import JobFolder, NodeStatus
from tuner.launchers.launcher import (
    CommandTask,
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    OnePer,
    RankFailure,
    RankTask,
    check_num_ranks,
)
from tuner.launchers.log_reader import LogFile
from tuner.launchers.node_failures import last_lines, node_failures
from tuner.launchers.rank_commands import function_command, logged, torchrun_command
from tuner.launchers.rank_tracker import RankTracker
from tuner.launchers.scheduler_backend import BackendView, NodeJob, SchedulerBackend

_LEASE_EVERY_SECONDS = 5.0
#: Shortest time between two polls of a job, multiplied by the number of its nodes, since a poll reads one
#: file per node from a shared file system.
_POLL_SECONDS_PER_NODE = 0.01
#: Longest time in seconds until the last files of the nodes appear after the backend has reported the end of
#: the job.
_FILES_LATE_SECONDS = 5.0
#: Longest time in seconds until the backend reports why it has ended the node agents.
_WORD_LATE_SECONDS = 10.0
#: A disk with less free space counts as full.
_LITTLE_BYTES = 2**20
#: Longest time in seconds that a backend needs to release nodes, in addition to the job's grace period.
_END_LATE_SECONDS = 10.0
#: Seconds between SIGTERM and SIGKILL for a rank that runs a function.
_RANK_GRACE_SECONDS = 5.0
#: If some nodes of a job were lost, the remaining nodes are asked to end for this reason.
_NODES_LOST = "nodes lost"
#: Reasons that a node agent reports if its backend ended it. The node agent also reports "cancelled" if the
#: file `end` is empty because the disk is full.
_TAKEN_AWAY = ("signal", "orphaned", "cancelled", _NODES_LOST)


class CommandLauncher(Launcher):
    """Runs commands and ranks on the nodes of a scheduler backend.

    - Nodes report in files in the task's folder, which must have the same path on all nodes.
    - If a process of the command fails, all other processes of the job get SIGTERM, then SIGKILL.
    - If the tuner is killed, its jobs end by themselves: at once if the backend runs on this host, else after
      `orphan_seconds`. A tuner that is started again ends them earlier by `end_orphans`.
    - Each rank that runs a function is a new process of `rank_program`, so that it imports torch again.
    - If a job tolerates rank loss, it continues after processes of ranks were killed, for example because
      memory ran out, as long as another rank is left. If a whole node is lost, the job ends as LOST.
    - Use the launcher from one thread only.

    Args:
        backend: Allocates nodes; `close` of the launcher closes it.
        python: Python interpreter on the nodes for ranks that run a function. It must have torch and the
            dependencies of Paceline.
        threads_per_rank: Number of CPU threads of a rank that runs a function.
        uses_torchrun: Whether torch's elastic agent starts a command that runs once per rank. Otherwise the
            node agent starts it, as it always does for functions.
        silence_seconds: Seconds without a report after which a node counts as lost.
        orphan_seconds: Seconds after which the nodes end a job if the tuner no longer renews the job's lease,
            a file that shows that the tuner still runs. The tuner renews no lease while it waits for its
            database, which it does for up to 10 minutes.
        clock: Function that returns the seconds on a monotonic clock.
    """

    def __init__(
        self,
        backend: SchedulerBackend,
        *,
        python: str = sys.executable,
        threads_per_rank: int = 1,
        uses_torchrun: bool = False,
        silence_seconds: float = 60.0,
        orphan_seconds: float = 900.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._backend, self._clock = backend, clock
        self._python, self._threads_per_rank, self._uses_torchrun = python, threads_per_rank, uses_torchrun
        self._silence_seconds, self._orphan_seconds = silence_seconds, orphan_seconds
        self._jobs: dict[str, CommandJob] = {}
        self._closed = False

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        json.dumps(dict(task.payload))  # a payload that JSON cannot represent raises an error here
        folder = self._make_folder(task.folder, num_nodes, devices_per_node)
        # torchrun is not used here: it would import torch once more on every node, which takes seconds.
        command = CommandTask(
            command=logged(
                function_command(folder.path, self._python),
                folder.path,
                tolerates_kill=task.tolerates_rank_loss,
            ),
            one_per=OnePer.RANK,
            environment=thread_variables(self._threads_per_rank),
            working_folder=Path.cwd(),
            folder=task.folder,
            grace_seconds=_RANK_GRACE_SECONDS,
        )
        ranks = RankTracker(
            num_nodes * devices_per_node,
            tolerates_rank_loss=task.tolerates_rank_loss,
            submitted_at=self._clock(),
            grace_seconds=_FILES_LATE_SECONDS,
        )
        with _preparing(task.folder):
            folder.write_ranks(
                {
                    "function": task.function,
                    "payload": dict(task.payload),
                    "folder": str(task.folder.resolve()),
                    "threads": self._threads_per_rank,
                    "secret": secrets.token_hex(32),
                }
            )
        return self._start(command, folder, num_nodes, devices_per_node, OnePer.RANK, ranks)

    def submit_command(self, task: CommandTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        folder, command = self._make_folder(task.folder, num_nodes, devices_per_node), task
        if task.one_per is OnePer.RANK and self._uses_torchrun:
            started = torchrun_command(
                logged(task.command, folder.path),
                folder.path,
                self._python,
                num_nodes=num_nodes,
                devices_per_node=devices_per_node,
            )
            command = replace(task, command=started, one_per=OnePer.NODE)
        return self._start(command, folder, num_nodes, devices_per_node, task.one_per)

    def _make_folder(self, task_folder: Path, num_nodes: int, devices_per_node: int) -> JobFolder:
        if self._closed:
            raise ProbeError("the launcher is closed, so it cannot start another job")
        check_num_ranks(num_nodes, devices_per_node)
        with _preparing(task_folder):
            return JobFolder.make(task_folder, uuid.uuid4().hex[:12])

    def _start(
        self,
        task: CommandTask,
        folder: JobFolder,
        num_nodes: int,
        devices_per_node: int,
        one_per: OnePer,
        ranks: RankTracker | None = None,
    ) -> JobHandle:
        """Asks the backend to start the node agents of a job, and stores the state of the job.

        Args:
            task: The command that the node agents run.
            folder: Folder of the job.
            num_nodes: Number of nodes of the job.
            devices_per_node: Number of ranks per node.
            one_per: Whether the job has a single log file, one log file per node or one per rank.
            ranks: Stores the reports of the ranks if the job runs a function; None if it runs a command.
        """
        submitted_at = self._clock()
        node_job = NodeJob(
            identity=folder.identity,
            folder=folder.path,
            num_nodes=num_nodes,
            devices_per_node=devices_per_node,
            time_limit_seconds=task.time_limit_seconds,
            grace_seconds=task.grace_seconds,
        )
        with _preparing(task.folder):
            backend_id = self._begin(task, folder, node_job)
        handle = JobHandle(
            identity=folder.identity,
            num_nodes=num_nodes,
            num_ranks=num_nodes * devices_per_node,
            folder=task.folder.resolve(),
        )
        self._jobs[folder.identity] = CommandJob(
            handle=handle,
            node_job=node_job,
            folder=folder,
            backend_id=backend_id,
            one_per=one_per,
            grace_seconds=task.grace_seconds,
            submitted_at=submitted_at,
            ranks=ranks,
        )
        return handle

    def _begin(self, task: CommandTask, folder: JobFolder, node_job: NodeJob) -> str:
        """Writes the task of the node agents to the job's folder, and lets the backend run them."""
        num_nodes, devices = node_job.num_nodes, node_job.devices_per_node
        folder.write_task(
            {
                "identity": node_job.identity,
                "command": task.command,
                "one_per": task.one_per.value,
                "environment": dict(task.environment),
                "working_folder": str(task.working_folder.resolve()),
                "num_nodes": num_nodes,
                "devices_per_node": devices,
                "grace_seconds": task.grace_seconds,
                "time_limit_seconds": task.time_limit_seconds,
                "orphan_seconds": self._orphan_seconds,
                "main_address": self._backend.main_address(node_job),
            }
        )
        folder.touch_lease()
        # Recorded before the backend is called: if killed in between, the job could still be found by name.
        record = {
            "engine": self._backend.name,
            "id": None,
            "num_nodes": num_nodes,
            "grace_seconds": task.grace_seconds,
        }
        folder.record(record)
        backend_id = self._backend.begin(node_job)
        with contextlib.suppress(OSError):  # it is found by its name, too
            folder.record({**record, "id": backend_id})
        return backend_id

    def poll(self, handle: JobHandle) -> JobStatus:
        job = self._job(handle)
        if job.final_status is not None:
            return job.final_status
        now = self._clock()
        if (
            job.last_status is not None
            and now - job.polled_at < _POLL_SECONDS_PER_NODE * job.node_job.num_nodes
        ):
            return replace(job.last_status, messages=())
        job.polled_at = now
        if now - job.lease_at > _LEASE_EVERY_SECONDS:
            job.lease_at = now
            job.folder.touch_lease()
        nodes = job.folder.statuses(job.node_job.num_nodes)
        job.note_heartbeats(nodes, now)
        state, failures = self._judge(job, nodes, now)
        if job.ranks is not None:
            job.listen(job.ranks, now)
            state, failures = with_ranks(job.ranks, state, failures, now)
        status = JobStatus(
            state=state,
            messages=() if job.ranks is None else job.ranks.take_messages(),
            results=job.ranks.results if job.ranks is not None and state is JobState.SUCCEEDED else {},
            failures=failures,
            seconds_since_progress=now - job.heard_at,
            startup_seconds=job.startup_seconds,
            pending_seconds=(job.pending_until or job.submitted_at) - job.submitted_at,
            detail=job.view.detail,
        )
        job.last_status = status
        if state.has_ended:
            self._finish(job, status)
        return status

    def cancel(self, handle: JobHandle) -> None:
        job = self._job(handle)
        if job.final_status is not None or job.cancelled_at is not None:
            return
        job.cancelled_at = self._clock()
        job.folder.ask_to_end("cancelled")
        if job.ranks is not None:
            self._finish(job, JobStatus(state=JobState.CANCELLED))
            return
        if not job.folder.statuses(job.node_job.num_nodes):
            # The job waits for nodes, or its node agents are starting: releasing the nodes loses nothing.
            self._backend.end(job.node_job, job.backend_id)

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        job = self._job(handle)
        return job.folder.log_files(
            job.one_per, num_nodes=job.node_job.num_nodes, devices_per_node=job.node_job.devices_per_node
        )

    def trim_logs(self, handle: JobHandle) -> None:
        job = self._job(handle)
        job.is_trimmed = True
        if job.final_status is not None:
            job.folder.trim_logs()

    def close(self) -> None:
        if self._closed:
            return
        left = [job for job in self._jobs.values() if job.final_status is None]
        for job in left:
            self.cancel(job.handle)
        for job in left:
            # If the backend does not answer, its nodes end by themselves, since the file `end` asks them to.
            with contextlib.suppress(ProbeError):
                while not self.poll(job.handle).state.has_ended:
                    time.sleep(0.05)
        self._closed = True
        self._backend.close()

    def end_orphans(self, folder: Path) -> list[str]:
        left = [found for found in JobFolder.all_in(folder) if self._is_orphan(found)]
        ended = []
        for found in left:
            found.ask_to_end("orphaned")
        for found in left:
            record = found.recorded() or {}
            job = NodeJob(
                identity=found.identity,
                folder=found.path.resolve(),
                num_nodes=int(record["num_nodes"]),
                devices_per_node=1,
            )
            backend_id = record["id"] or ""
            self._await_end(found, job, backend_id, float(record["grace_seconds"]) + _FILES_LATE_SECONDS)
            self._backend.end(job, backend_id)
            found.forget()
            found.trim_logs()
            ended.append(backend_id)
        return ended

    def _is_orphan(self, found: JobFolder) -> bool:
        record = found.recorded()
        return (
            record is not None and found.identity not in self._jobs and record["engine"] == self._backend.name
        )

    def _await_end(self, found: JobFolder, job: NodeJob, backend_id: str, seconds: float) -> None:
        """Waits until a job that was asked to end has ended."""
        until = self._clock() + seconds
        while self._clock() < until:
            nodes = found.statuses(job.num_nodes).values()
            if all(node.has_ended for node in nodes) or self._backend.poll(job, backend_id).state.has_ended:
                return
            time.sleep(0.1)

    def _judge(
        self, job: CommandJob, nodes: dict[int, NodeStatus], now: float
    ) -> tuple[JobState, tuple[RankFailure, ...]]:
        """Returns the state of a job according to the reports of its nodes and its backend."""
        if len(nodes) == job.node_job.num_nodes and all(node.has_ended for node in nodes.values()):
            return self._ended(job, nodes, now)
        job.view = self._backend.poll(job.node_job, job.backend_id)
        if job.view.state is JobState.PENDING and not nodes:
            job.pending_until = now
        if job.cancelled_at is not None:
            late = job.cancelled_at + job.grace_seconds + _END_LATE_SECONDS
            if not job.view.state.has_ended:
                if now > late:
                    self._backend.end(job.node_job, job.backend_id)
                return (JobState.RUNNING if nodes else JobState.PENDING), ()
            return JobState.CANCELLED, ()
        silent = job.silent_nodes(nodes, now, self._silence_seconds)
        if silent:
            words = f"{_node_words(silent, nodes)} reported nothing for {self._silence_seconds:g} s"
            return JobState.LOST, (RankFailure(rank=silent[0], reason=words),)
        if job.view.state.has_ended:
            if job.view.state is not JobState.SUCCEEDED:
                # Some nodes may still run: they are asked to end, so that their processes can save.
                job.folder.ask_to_end(_NODES_LOST)
            # The last files of the nodes may appear a moment after the backend's report.
            job.gone_at = now if job.gone_at is None else job.gone_at
            if now - job.gone_at > _FILES_LATE_SECONDS:
                return self._gone(job, nodes)
        return (JobState.RUNNING if nodes else JobState.PENDING), ()

    def _gone(
        self, job: CommandJob, nodes: dict[int, NodeStatus]
    ) -> tuple[JobState, tuple[RankFailure, ...]]:
        """Returns the state of a job that the backend reports as ended, though some nodes reported no end."""
        missing = [n for n in range(job.node_job.num_nodes) if n not in nodes or not nodes[n].has_ended]
        state = JobState.LOST if job.view.state is JobState.SUCCEEDED else job.view.state
        words = job.view.detail or f"the backend {self._backend.name} reports the job as {job.view.state}"
        printed = self._backend_output(job)
        with contextlib.suppress(OSError):
            if shutil.disk_usage(job.folder.path).free < _LITTLE_BYTES:
                printed = f"\nno space is left in {job.folder.path}, so nodes could not report{printed}"
        named = f"{_node_words(missing, nodes)} ended without a report" if nodes else "no node started"
        reason = f"{named}: {words}{printed}"
        first = RankFailure(rank=missing[0], reason=reason, exit_code=_killed_by(job.view))
        return state, (first, *node_failures(job.folder, nodes, job.node_job.devices_per_node))

    def _backend_output(self, job: CommandJob) -> str:
        """Returns the output of the node agents themselves, such as the reason why they could not start."""
        with contextlib.suppress(OSError):
            for path in sorted(job.folder.path.glob("starter*.err")):
                text = path.read_text(errors="replace").strip()
                if text:
                    return "\n" + last_lines(text)
        return ""

    def _ended(
        self, job: CommandJob, nodes: dict[int, NodeStatus], now: float
    ) -> tuple[JobState, tuple[RankFailure, ...]]:
        if job.cancelled_at is not None:
            return JobState.CANCELLED, ()
        reasons = [node.reason or "" for node in nodes.values()]
        if any(reason == "time limit" for reason in reasons):
            return JobState.TIMED_OUT, (RankFailure(rank=0, reason="the job reached its time limit"),)
        failures = node_failures(job.folder, nodes, job.node_job.devices_per_node)
        taken = [reason for reason in reasons if reason.startswith(_TAKEN_AWAY)]
        if taken:
            # The backend's reason when nodes were lost says more than its reason once all have ended.
            if not job.view.state.has_ended:
                job.view = self._backend.poll(job.node_job, job.backend_id)
            view = job.view
            # The backend's reason may come a moment later, and processes fail if another process is lost.
            job.gone_at = now if job.gone_at is None else job.gone_at
            if not view.state.has_ended and now - job.gone_at <= _WORD_LATE_SECONDS:
                return JobState.RUNNING, ()
            if view.memory_ran_out:
                first = RankFailure(rank=0, reason=view.detail, exit_code=_killed_by(view))
                return JobState.FAILED, (first, *failures)
            # A process that fails as its peers are taken away is no failure of the command.
            if job.folder.first_failed() is None or view.state in (JobState.LOST, JobState.TIMED_OUT):
                state = view.state if view.state is JobState.TIMED_OUT else JobState.LOST
                words = view.detail or f"the nodes were taken away from the job ({taken[0]})"
                return state, (RankFailure(rank=0, reason=words), *failures)
        if failures:
            return JobState.FAILED, failures
        return JobState.SUCCEEDED, ()

    def _finish(self, job: CommandJob, status: JobStatus) -> None:
        # Each message is returned only once.
        job.final_status = replace(status, messages=())
        # A node that the backend gave up may still run where nobody reaches it except through the folder.
        job.folder.ask_to_end("over")
        self._backend.end(job.node_job, job.backend_id)
        with contextlib.suppress(OSError):
            job.folder.forget()
        if job.is_trimmed:
            job.folder.trim_logs()

    def _job(self, handle: JobHandle) -> CommandJob:
        try:
            return self._jobs[handle.identity]
        except KeyError:
            raise ValueError(f"job {handle.identity} was not submitted to this launcher") from None


@contextlib.contextmanager
def _preparing(folder: Path) -> Iterator[None]:
    """Context manager that raises a ProbeError if the files of a job cannot be written."""
    try:
        yield
    except OSError as error:
        raise ProbeError(f"the files of a job cannot be written in {folder}: {error}") from error


def _killed_by(view: BackendView) -> int | None:
    """Returns the exit code of SIGKILL if the backend ended the job because memory ran out, else None."""
    return -signal.SIGKILL if view.memory_ran_out else None


def _node_words(numbers: list[int], nodes: dict[int, NodeStatus]) -> str:
    named = [f"{number} ({nodes[number].host})" if number in nodes else str(number) for number in numbers]
    return f"node{'s' if len(named) > 1 else ''} {', '.join(named)}"
