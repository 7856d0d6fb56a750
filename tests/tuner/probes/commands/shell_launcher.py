"""The smallest launcher of commands: processes of this host, asked to end by SIGTERM, then killed."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from tuner.launchers import (
    CommandTask,
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    LogFile,
    OnePer,
    RankFailure,
)


@dataclass
class ShellJob:
    task: CommandTask
    handle: JobHandle
    processes: dict[int, subprocess.Popen[bytes]]
    asked_at: float | None = None
    state: JobState = JobState.RUNNING
    failures: list[RankFailure] = field(default_factory=list)


class ShellLauncher(Launcher):
    """Starts a command's copies on this host.

    Args:
        pending_polls: A job waits for so many polls before it starts.
        lost: After so many seconds each of the first jobs loses its nodes, one entry a job.
        clock: That of the prober.
    """

    def __init__(
        self,
        *,
        pending_polls: int = 0,
        lost: tuple[float, ...] = (),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._clock = clock
        self.jobs: dict[str, ShellJob] = {}
        self.submitted: list[CommandTask] = []
        self.trimmed: list[str] = []
        self._pending_polls = pending_polls
        self._waits: dict[str, tuple[int, float]] = {}
        self._pending: dict[str, float] = {}
        self._lost = list(lost)
        self._lost_at: dict[str, float] = {}

    def submit_command(self, task, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        self.submitted.append(task)
        handle = JobHandle(
            identity=str(len(self.jobs)),
            num_nodes=num_nodes,
            num_ranks=num_nodes * devices_per_node,
            folder=task.folder,
        )
        job = ShellJob(task=task, handle=handle, processes={})
        self.jobs[handle.identity] = job
        if self._pending_polls:
            job.state = JobState.PENDING
            self._waits[handle.identity] = (self._pending_polls, self._clock())
        else:
            self._begin(job, num_nodes, devices_per_node)
        return handle

    def poll(self, handle: JobHandle) -> JobStatus:
        job = self.jobs[handle.identity]
        if job.state is JobState.PENDING:
            polls, since = self._waits[handle.identity]
            self._waits[handle.identity] = (polls - 1, since)
            waited = self._clock() - since
            if polls > 1:
                return JobStatus(state=job.state, pending_seconds=waited, detail="Resources")
            self._pending[handle.identity] = waited
            devices = handle.num_ranks // handle.num_nodes
            job.state = JobState.RUNNING
            self._begin(job, handle.num_nodes, devices)
        self._poll(job)
        return JobStatus(
            state=job.state,
            failures=tuple(job.failures),
            pending_seconds=self._pending.get(handle.identity, 0.0),
        )

    def cancel(self, handle: JobHandle) -> None:
        job = self.jobs[handle.identity]
        if job.state.has_ended or job.asked_at is not None:
            return
        job.asked_at = time.monotonic()
        if job.state is JobState.PENDING:
            job.state = JobState.CANCELLED
        self._signal(job, signal.SIGTERM)

    def logs(self, handle: JobHandle) -> dict[int, str]:
        found = {}
        for path in sorted(handle.folder.glob("node*.log")):
            found[int(path.stem.removeprefix("node"))] = path.read_text(errors="replace")
        return found

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        nodes = range(handle.num_nodes)
        return {node: LogFile(path=handle.folder / f"node{node}.log") for node in nodes}

    def trim_logs(self, handle: JobHandle) -> None:
        self.trimmed.append(handle.identity)

    def close(self) -> None:
        for job in self.jobs.values():
            if not job.state.has_ended:
                self._signal(job, signal.SIGKILL)
                job.state = JobState.CANCELLED
        for job in self.jobs.values():
            for process in job.processes.values():
                process.wait()

    def _begin(self, job: ShellJob, num_nodes: int, devices: int) -> None:
        task = job.task
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = str(free.getsockname()[1])
        snapshots = {
            OnePer.JOB: [(0, {})],
            OnePer.NODE: [(node, {}) for node in range(num_nodes)],
            OnePer.RANK: [
                (
                    rank // devices,
                    {
                        "RANK": str(rank),
                        "WORLD_SIZE": str(num_nodes * devices),
                        "LOCAL_RANK": str(rank % devices),
                        "LOCAL_WORLD_SIZE": str(devices),
                    },
                )
                for rank in range(num_nodes * devices)
            ],
        }[task.one_per]
        for copy, (node, more) in enumerate(snapshots):
            environment = {
                **os.environ,
                **task.environment,
                "PACELINE_NODE_RANK": str(node),
                "PACELINE_NUM_NODES": str(num_nodes),
                "PACELINE_MAIN_ADDRESS": "127.0.0.1",
                "PACELINE_MAIN_PORT": port,
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
                **more,
            }
            with (Path(task.folder) / f"node{node}.log").open("ab") as log:
                job.processes[copy] = subprocess.Popen(
                    ["/bin/sh", "-c", task.command],
                    cwd=task.working_folder,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
        if self._lost:
            self._lost_at[job.handle.identity] = time.monotonic() + self._lost.pop(0)

    def _poll(self, job: ShellJob) -> None:
        if job.state is not JobState.RUNNING:
            return
        if time.monotonic() > self._lost_at.get(job.handle.identity, float("inf")):
            self._signal(job, signal.SIGKILL)
            self._wait(job)
            job.state = JobState.LOST
            return
        if job.asked_at is not None and time.monotonic() > job.asked_at + job.task.grace_seconds:
            self._signal(job, signal.SIGKILL)
            self._wait(job)
        codes = {copy: process.poll() for copy, process in job.processes.items()}
        failed = {copy: code for copy, code in codes.items() if code}
        if failed and job.asked_at is None:
            job.failures = [
                RankFailure(rank=copy, reason="it ended", exit_code=code) for copy, code in failed.items()
            ]
            self._signal(job, signal.SIGKILL)
            self._wait(job)
            job.state = JobState.FAILED
        elif None not in codes.values() and not any(map(_has_group, job.processes.values())):
            job.state = JobState.SUCCEEDED if job.asked_at is None else JobState.CANCELLED

    @staticmethod
    def _signal(job: ShellJob, number: int) -> None:
        for process in job.processes.values():
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)

    @staticmethod
    def _wait(job: ShellJob) -> None:
        for process in job.processes.values():
            process.wait()


def _has_group(process: subprocess.Popen[bytes]) -> bool:
    """Whether what a shell started still runs, be the shell gone."""
    try:
        os.killpg(process.pid, 0)
    except ProcessLookupError:
        return False
    return True
