"""The launcher for this host: warm processes, one per rank, reused until something goes wrong."""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import time
import uuid
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from tuner.domain.errors import ProbeError
from tuner.domain.threads import thread_variables
from tuner.launchers.command_launcher import CommandLauncher
from tuner.launchers.launcher import (
    CommandTask,
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    Task,
    check_task,
)
from tuner.launchers.local_job import LocalJob
from tuner.launchers.local_nodes import LocalNodes
from tuner.launchers.log_reader import LogFile
from tuner.launchers.process_records import remove_record, write_record
from tuner.launchers.warm_ranks import ForkServer, WarmRank

#: What a rank needs before it can train; constructing an optimizer imports torch._dynamo.
PRELOAD = (
    "numpy",
    "torch",
    "torch.distributed",
    "torch.nn.functional",
    "torch.optim",
    "torch._dynamo",
)


class LocalLauncher(Launcher):
    """Runs all ranks of all nodes as processes of this host.

    A first job waits for torch to be imported once; later ranks are forked from that state, and a
    rank whose job succeeded takes the next job. The ranks of a job that failed or was cancelled are
    killed. Each task sees the environment, the folder and the import path of the moment it was
    submitted. Messages and results are plain data that survive JSON. Commands are run as `CommandLauncher`
    does, each node's as a process of its own. Not for several threads at once.

    Args:
        threads_per_rank: CPU threads of one rank.
        grace_seconds: How long the other ranks of a failed job may still say what happened to them.
        preload: Modules imported once, before the first rank starts.
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
        self._jobs: dict[str, LocalJob] = {}
        self._commands = CommandLauncher(LocalNodes())
        self._of_commands: set[str] = set()
        self._closed = False
        self._owner = os.getpid()
        atexit.register(self.close)

    def warm(self, num_ranks: int) -> None:
        """Has so many ranks on their way before the first job wants them; returns at once.

        Args:
            num_ranks: Ranks that idle from now on, those included that do already.
        """
        self._idle = self._take(max(num_ranks, len(self._idle)))

    def submit(self, task: Task, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        if self._closed:
            raise ProbeError("this launcher is closed and takes no more jobs")
        check_task(task, num_nodes=num_nodes, devices_per_node=devices_per_node)
        if isinstance(task, CommandTask):
            handle = self._commands.submit(task, num_nodes=num_nodes, devices_per_node=devices_per_node)
            self._of_commands.add(handle.identity)
            return handle
        submitted_at = time.monotonic()
        identity = uuid.uuid4().hex[:12]
        folder = task.folder.resolve()
        rendezvous = folder / f"rendezvous-{identity}"
        handle = JobHandle(
            identity=identity, num_nodes=num_nodes, num_ranks=num_nodes * devices_per_node, folder=folder
        )
        job_task = {
            "function": task.function,
            "payload": dict(task.payload),
            "folder": str(folder),
            "num_ranks": handle.num_ranks,
            "init_method": f"file://{rendezvous}",
            "threads": self._threads_per_rank,
            **_surroundings(self._threads_per_rank),
        }
        logs = {rank: folder / f"rank{rank}.log" for rank in range(handle.num_ranks)}
        log_starts = {rank: log.stat().st_size if log.exists() else 0 for rank, log in logs.items()}
        ranks = self._take(handle.num_ranks)
        places = self._free_places(handle.num_ranks)
        for rank, (process, place) in enumerate(zip(ranks, places, strict=True)):
            process.send({**job_task, "rank": rank, "local_rank": place})
        job = LocalJob(
            handle=handle,
            ranks=ranks,
            rendezvous=rendezvous,
            submitted_at=submitted_at,
            grace_seconds=self._grace_seconds,
            log_starts=log_starts,
            tolerates_rank_loss=task.tolerates_rank_loss,
            places=places,
        )
        self._jobs[identity] = job
        self._record(job)
        return handle

    def poll(self, handle: JobHandle) -> JobStatus:
        if handle.identity in self._of_commands:
            return self._commands.poll(handle)
        job = self._job(handle)
        if not job.state.has_ended and self._server is not None:
            server = self._server
            server.drain()
            job.listen(server_words="" if server.alive else server.last_words())
            if job.state.has_ended:
                self._finish(job)
            else:
                self._record(job)
        return job.take_status()

    def cancel(self, handle: JobHandle) -> None:
        if handle.identity in self._of_commands:
            self._commands.cancel(handle)
            return
        job = self._job(handle)
        if not job.state.has_ended:
            job.state = JobState.CANCELLED
            self._finish(job)

    def logs(self, handle: JobHandle) -> dict[int, str]:
        if handle.identity in self._of_commands:
            return self._commands.logs(handle)
        return self._job(handle).logs()

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        if handle.identity in self._of_commands:
            return self._commands.log_files(handle)
        return self._job(handle).log_files()

    def trim_logs(self, handle: JobHandle) -> None:
        if handle.identity in self._of_commands:
            self._commands.trim_logs(handle)
            return
        job = self._job(handle)
        job.is_trimmed = True
        if job.state.has_ended:
            job.trim_logs()

    def close(self) -> None:
        # A child forked from the tuner inherits this object, but not the ranks.
        if self._closed or os.getpid() != self._owner:
            return
        for job in self._jobs.values():
            if not job.state.has_ended:
                job.state = JobState.CANCELLED
                self._finish(job)
        self._closed = True
        self._commands.close()
        if self._server is not None:
            self._server.end(self._idle)
            self._server.close()
        self._idle.clear()
        atexit.unregister(self.close)

    def __enter__(self) -> LocalLauncher:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def processes(self, handle: JobHandle) -> dict[int, int]:
        """Rank to process number, for the ranks that have one by now."""
        job = self._job(handle)
        if self._server is not None:
            self._server.drain()
        return job.processes()

    def _take(self, num_ranks: int) -> list[WarmRank]:
        """Idle ranks, and new ones where they do not suffice."""
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
                rank.forget()
            else:
                idle.append(rank)
        taken, self._idle = idle[:num_ranks], idle[num_ranks:]
        return taken + [self._server.fork() for _ in range(num_ranks - len(taken))]

    def _free_places(self, num_ranks: int) -> tuple[int, ...]:
        """The first places on this host that no running job has: two jobs must not share a device."""
        running = [job for job in self._jobs.values() if not job.state.has_ended]
        taken = {place for job in running for place in job.places}
        return tuple(itertools.islice((n for n in itertools.count() if n not in taken), num_ranks))

    def _finish(self, job: LocalJob) -> None:
        """Keeps the ranks of a job that succeeded and kills those of any other."""
        if job.state is JobState.SUCCEEDED:
            returned = job.returned
            # First in line: they have imported and loaded what the next slice of the job needs.
            self._idle[:0] = returned
            if self._server is not None and len(returned) < len(job.ranks):
                self._server.end([rank for rank in job.ranks if rank not in returned])
        elif self._server is not None:
            self._server.end(job.ranks)
        job.rendezvous.unlink(missing_ok=True)
        if job.is_trimmed:
            job.trim_logs()
        with contextlib.suppress(OSError):
            remove_record(job.handle.folder)

    def _record(self, job: LocalJob) -> None:
        processes = job.processes()
        if self._server is not None and processes != job.recorded:
            write_record(job.handle.folder, server=self._server.process, ranks=processes)
            job.recorded = processes

    def _job(self, handle: JobHandle) -> LocalJob:
        try:
            return self._jobs[handle.identity]
        except KeyError:
            raise ValueError(f"job {handle.identity} was not submitted to this launcher") from None


def _surroundings(threads: int) -> dict[str, Any]:
    """The tuner's environment, folder and import path as a task's ranks shall see them."""
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
