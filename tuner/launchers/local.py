"""The launcher for this host: one process per rank, which later jobs reuse unless a job fails."""

from __future__ import annotations

import atexit
import itertools
import os
import secrets
import sys
import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.domain.errors import ProbeError
from tuner.domain.threads import thread_variables
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.launcher import (
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    RankTask,
    check_num_ranks,
)
from tuner.launchers.local_nodes import LocalNodes
from tuner.launchers.log_ends import read_ends, trim_file
from tuner.launchers.log_reader import LogFile
from tuner.launchers.rank_tracker import RankTracker
from tuner.launchers.registry import ClusterSettings, LauncherEntry
from tuner.launchers.warm_ranks import ForkServer, WarmRank

#: Modules that a rank needs to train; the constructor of an optimizer imports torch._dynamo.
PRELOAD = (
    "numpy",
    "torch",
    "torch.distributed",
    "torch.nn.functional",
    "torch.optim",
    "torch._dynamo",
)


@dataclass(kw_only=True)
class _Job:
    """State of a job that was submitted.

    Args:
        handle: Handle of the job.
        processes: The process of each rank, in the order of ranks.
        rendezvous: File for the rendezvous of `torch.distributed`.
        submitted_at: Time of submission, seconds on the monotonic clock.
        log_files: Maps each rank to its log file.
        devices: The device number of each rank on this host, in the order of ranks.
        tracker: Stores the reports of the ranks.
        state: State of the job.
        is_trimmed: Whether long log files have to be shortened when the job has ended.
    """

    handle: JobHandle
    processes: list[WarmRank]
    rendezvous: Path
    submitted_at: float
    log_files: dict[int, LogFile]
    devices: tuple[int, ...]
    tracker: RankTracker
    state: JobState = JobState.PENDING
    is_trimmed: bool = False

    def listen(self, *, server_output: str | None) -> None:
        """Reads the reports and exit codes of the ranks, and updates the state of the job.

        Args:
            server_output: The output of the fork server if it has ended; None if it runs.
        """
        for rank, process in enumerate(self.processes):
            # This is read before the messages, so that no message of a rank that has ended is missed.
            has_ended = process.ended
            for frame in process.receive():
                self.tracker.take(rank, frame, frame.get("at", time.monotonic()))
            if has_ended and not self.tracker.has_ended(rank):
                log_file, reason = self.log_files[rank], None
                if process.exit_code is None and server_output:
                    reason = f"its process ended together with the fork server:\n{server_output}"
                log = read_ends(log_file.path, start=log_file.start)
                self.tracker.take_exit(rank, process.exit_code, log=log, at=time.monotonic(), reason=reason)
        self.state = self.tracker.state(time.monotonic())

    def trim_logs(self) -> None:
        """Shortens each long log file to its beginning and end."""
        for log_file in self.log_files.values():
            trim_file(log_file.path, start=log_file.start)


class LocalLauncher(Launcher):
    """Runs the ranks of all nodes as processes of this host.

    - A fork server imports torch once, for which the first job waits, and forks the processes of ranks.
    - If a job succeeds, its processes are reused: they start the next job within 10 ms.
    - If a job fails or is cancelled, its processes are killed.
    - A task runs with the environment, working folder and import path that the tuner had at submission.

    Args:
        threads_per_rank: Number of CPU threads of each rank.
        grace_seconds: After a rank has failed, seconds for the other ranks to report their own errors.
        preload: Modules that the fork server imports before the first rank starts.
    """

    def __init__(
        self,
        *,
        threads_per_rank: int = 1,
        grace_seconds: float = 2.0,
        preload: Sequence[str] = PRELOAD,
    ) -> None:
        if threads_per_rank < 1:
            raise ValueError(f"threads_per_rank must be at least 1, got {threads_per_rank}")
        self._threads_per_rank = threads_per_rank
        self._grace_seconds = grace_seconds
        self._preload = tuple(preload)
        self._server: ForkServer | None = None
        self._idle: list[WarmRank] = []
        self._jobs: dict[str, _Job] = {}
        self._closed = False
        self._owner = os.getpid()
        atexit.register(self.close)

    def warm(self, num_ranks: int) -> None:
        self._idle = self._take(max(num_ranks, len(self._idle)))

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        if self._closed:
            raise ProbeError("the launcher is closed, so it cannot start another job")
        check_num_ranks(num_nodes, devices_per_node)
        submitted_at = time.monotonic()
        identity = uuid.uuid4().hex[:12]
        folder = task.folder.resolve()
        num_ranks = num_nodes * devices_per_node
        rendezvous = folder / f"rendezvous-{identity}"
        job_task = {
            "function": task.function,
            "payload": dict(task.payload),
            "folder": str(folder),
            "num_ranks": num_ranks,
            "init_method": f"file://{rendezvous}",
            "threads": self._threads_per_rank,
            "secret": secrets.token_hex(32),
            **_surroundings(self._threads_per_rank),
        }
        logs = [folder / f"rank{rank}.log" for rank in range(num_ranks)]
        job = _Job(
            handle=JobHandle(identity=identity, num_nodes=num_nodes, num_ranks=num_ranks, folder=folder),
            processes=self._take(num_ranks),
            rendezvous=rendezvous,
            submitted_at=submitted_at,
            log_files={
                rank: LogFile(path=log, start=log.stat().st_size if log.exists() else 0)
                for rank, log in enumerate(logs)
            },
            devices=self._free_devices(num_ranks),
            tracker=RankTracker(
                num_ranks,
                tolerates_rank_loss=task.tolerates_rank_loss,
                submitted_at=submitted_at,
                grace_seconds=self._grace_seconds,
            ),
        )
        for rank, process in enumerate(job.processes):
            process.send({**job_task, "rank": rank, "local_rank": job.devices[rank]})
        self._jobs[identity] = job
        return job.handle

    def poll(self, handle: JobHandle) -> JobStatus:
        job = self._job(handle)
        if not job.state.has_ended and self._server is not None:
            self._server.drain()
            job.listen(server_output=None if self._server.alive else self._server.output())
            if job.state.has_ended:
                self._finish(job)
        tracker = job.tracker
        entered_at = tracker.entered_at
        return JobStatus(
            state=job.state,
            messages=tracker.take_messages(),
            results=tracker.results if job.state is JobState.SUCCEEDED else {},
            failures=tracker.failures,
            seconds_since_progress=time.monotonic() - tracker.heard_at,
            startup_seconds=None if entered_at is None else entered_at - job.submitted_at,
        )

    def cancel(self, handle: JobHandle) -> None:
        job = self._job(handle)
        if not job.state.has_ended:
            job.state = JobState.CANCELLED
            self._finish(job)

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        return self._job(handle).log_files

    def trim_logs(self, handle: JobHandle) -> None:
        job = self._job(handle)
        job.is_trimmed = True
        if job.state.has_ended:
            job.trim_logs()

    def close(self) -> None:
        # A process forked from the tuner inherits this object, but not the ranks.
        if self._closed or os.getpid() != self._owner:
            return
        for job in self._jobs.values():
            self.cancel(job.handle)
        self._closed = True
        if self._server is not None:
            self._server.close()
        self._idle.clear()
        atexit.unregister(self.close)

    def processes(self, handle: JobHandle) -> dict[int, int]:
        """Maps each rank of a job that has been forked to its process number."""
        job = self._job(handle)
        if self._server is not None:
            self._server.drain()
        return {rank: found.process for rank, found in enumerate(job.processes) if found.process is not None}

    def end_idle_ranks(self) -> None:
        """Kills the ranks that no job uses, so that the next job gets new processes."""
        if self._server is not None:
            self._server.end(self._idle)
        self._idle.clear()

    def _take(self, num_ranks: int) -> list[WarmRank]:
        """Returns processes for ranks: idle processes first, and new ones if there are too few.

        Args:
            num_ranks: Number of processes that are needed, one for each rank.
        """
        if self._server is not None:
            self._server.drain()
        if self._server is None or not self._server.alive:
            if self._server is not None:
                self._server.close()
            environment = {**os.environ, **thread_variables(self._threads_per_rank)}
            self._server = ForkServer(environment=environment, preload=self._preload)
        idle = []
        for rank in self._idle:
            if rank.ended or rank.has_hung_up():
                rank.close()
            else:
                idle.append(rank)
        taken, self._idle = idle[:num_ranks], idle[num_ranks:]
        return taken + [self._server.fork() for _ in range(num_ranks - len(taken))]

    def _free_devices(self, num_ranks: int) -> tuple[int, ...]:
        """Returns the lowest device numbers that no running job uses.

        Args:
            num_ranks: Number of devices that are needed, one for each rank.
        """
        running = [job for job in self._jobs.values() if not job.state.has_ended]
        taken = {device for job in running for device in job.devices}
        return tuple(itertools.islice((n for n in itertools.count() if n not in taken), num_ranks))

    def _finish(self, job: _Job) -> None:
        """Kills the processes of a job. If the job succeeded, later jobs reuse those that have returned."""
        returned = job.tracker.results.keys() if job.state is JobState.SUCCEEDED else ()
        # These processes are reused first, since they have imported the modules that the next slice needs.
        self._idle[:0] = [job.processes[rank] for rank in returned]
        if self._server is not None:
            self._server.end([found for rank, found in enumerate(job.processes) if rank not in returned])
        job.rendezvous.unlink(missing_ok=True)
        if job.is_trimmed:
            job.trim_logs()

    def _job(self, handle: JobHandle) -> _Job:
        try:
            return self._jobs[handle.identity]
        except KeyError:
            raise ValueError(f"job {handle.identity} was not submitted to this launcher") from None


def _surroundings(threads: int) -> dict[str, Any]:
    """Returns environment, working folder and import path of this process, which the ranks of a task use.

    Args:
        threads: Number of CPU threads of each rank.
    """
    here = str(Path.cwd())
    environment = {**os.environ, **thread_variables(threads)}
    if Path("/sys/class/net/lo").exists():
        # Ranks of one host need no name resolution to find each other.
        environment.setdefault("GLOO_SOCKET_IFNAME", "lo")
    return {
        "environment": environment,
        "working_folder": here,
        "import_path": [entry or here for entry in sys.path],
    }


def _create(_section: None, settings: ClusterSettings) -> Launcher:
    if settings.runs_command:
        return CommandLauncher(LocalNodes())
    return LocalLauncher(threads_per_rank=settings.threads_per_rank)


LOCAL = LauncherEntry(nodes_are="processes of this machine", create=_create, nodes_share_host=True)
