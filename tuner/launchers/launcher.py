"""The interface of launchers, which start ranks and commands on nodes and report their state.

A rank is one training process, with one device. A node has one or more devices.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, Self

from tuner.domain.errors import ProbeError
from tuner.launchers.log_ends import read_ends
from tuner.launchers.log_reader import LogFile


class JobState(StrEnum):
    """The state of a submitted job."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    """The job exceeded its time limit."""
    LOST = "lost"
    """The nodes of the job were preempted, failed or became unreachable."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """A function that every rank of a job runs.

    Args:
        function: Import path `module:function` of the function; it is called with a `RankContext` and the
            payload.
        payload: Data that JSON can represent, the same for all ranks. The messages and the result of the
            function must be such data, too.
        folder: Existing folder for the ranks' log files and rendezvous file.
        tolerates_rank_loss: Whether the job continues after some of its ranks were killed. If the function
            raises an error in a rank, the job ends in any case.
    """

    function: str
    payload: Mapping[str, Any]
    folder: Path
    tolerates_rank_loss: bool = False

    def __post_init__(self) -> None:
        if not all(self.function.partition(":")):
            raise ValueError(f"{self.function!r} is not an import path; write module:function")


class OnePer(StrEnum):
    """Whether a job starts its command once, once per node or once per rank."""

    JOB = "job"
    """One process, on the first node, which starts all other processes itself."""
    NODE = "node"
    """One process on each node, as torchrun expects to be started."""
    RANK = "rank"
    """One process per device, for a program that reads RANK and WORLD_SIZE."""


@dataclass(frozen=True, kw_only=True)
class CommandTask:
    """A shell command that the nodes of a job run, such as the user's own training script.

    Each process is run by `/bin/sh -c` in its own process group. These environment variables are added:

    - `PACELINE_NODE_RANK` and `PACELINE_NUM_NODES`: number of the node, from 0, and number of nodes.
    - `PACELINE_MAIN_ADDRESS` and `MASTER_ADDR`: address of the first node.
    - `PACELINE_MAIN_PORT` and `MASTER_PORT`: a free port on the first node.
    - `RANK`, `WORLD_SIZE`, `LOCAL_RANK` and `LOCAL_WORLD_SIZE`, as torchrun sets them; only if there is one
      process per rank.

    Args:
        command: The command line for the shell.
        one_per: Whether to start one process for the job, one per node or one per rank.
        environment: Additional environment variables.
        working_folder: Working folder of the command; the same path on every node.
        folder: Existing folder for logs and files of the job; the same path on every node.
        grace_seconds: Seconds between SIGTERM and SIGKILL when the command is ended.
        time_limit_seconds: Longest time on the nodes, without the wait for nodes, seconds; None for no limit.
    """

    command: str
    one_per: OnePer = OnePer.NODE
    environment: Mapping[str, str] = field(default_factory=dict)
    working_folder: Path
    folder: Path
    grace_seconds: float = 30.0
    time_limit_seconds: float | None = None


def check_num_ranks(num_nodes: int, devices_per_node: int) -> None:
    """Checks that a job has at least one rank.

    Raises:
        ValueError: The number of nodes or of devices per node is below 1.
    """
    if num_nodes < 1 or devices_per_node < 1:
        raise ValueError(f"a job needs at least one rank, got {num_nodes} nodes x {devices_per_node} devices")


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """Handle of a submitted job; the methods of a launcher take it.

    Args:
        identity: Name of the job, unique within the launcher.
        num_nodes: Number of nodes of the job.
        num_ranks: Number of ranks of the job.
        folder: Folder of the job's task.
    """

    identity: str
    num_nodes: int
    num_ranks: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """The failure of one rank, or of one node if a command runs once per node.

    Args:
        rank: The rank or node that failed.
        reason: The traceback of the rank, or a description of how its process ended.
        exit_code: Exit code of the process, negative for a signal; None if the process still runs.
    """

    rank: int
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """The state of a job when it was polled, and the messages of its ranks.

    Args:
        state: State of the job.
        messages: Messages of ranks since the last poll, as (rank, message); those of each rank are in order.
        results: Maps each rank to the result of its function; empty until the job has succeeded.
        failures: Failures of ranks, the first failure first.
        seconds_since_progress: Seconds since the last report of any rank.
        startup_seconds: Seconds from submission until every rank had entered the function, or every process
            of a command was started, without the wait for nodes; None if they have not all started.
        pending_seconds: Seconds for which the job has waited for its nodes.
        detail: Explanation of the state, such as the reason for which the job waits; may be empty.
    """

    state: JobState
    messages: tuple[tuple[int, dict[str, Any]], ...] = ()
    results: Mapping[int, Any] = field(default_factory=dict)
    failures: tuple[RankFailure, ...] = ()
    seconds_since_progress: float = 0.0
    startup_seconds: float | None = None
    pending_seconds: float = 0.0
    detail: str = ""


class Launcher(ABC):
    """Starts jobs on nodes and reports their state; no method waits for the end of a job.

    - A job runs either a function in every rank, or a command.
    - Every rank of a job gets its number, the number of ranks, and an address or file for the rendezvous of
      `torch.distributed`.
    - If a rank fails, the launcher ends all other ranks of the job, and reports the errors of all ranks.
    - If the task tolerates rank loss, the job continues without ranks that were killed. The results do not
      contain these ranks, nor ranks that return much later than the first rank.
    - All processes of all jobs end when the launcher's process ends, even if it is killed. On other hosts
      they may run for some more minutes.
    - Use a launcher from one thread only.

    A subclass overrides `submit`, `submit_command` or both.
    """

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        """Starts `num_nodes * devices_per_node` ranks and returns at once.

        Args:
            task: The function to run and its data.
            num_nodes: Number of nodes.
            devices_per_node: Number of devices per node, each with one rank.

        Raises:
            ProbeError: The ranks cannot be started, or this launcher cannot run functions.
            TypeError: The payload has data that JSON cannot represent.
            ValueError: The number of ranks is 0.
        """
        raise ProbeError(f"{type(self).__name__} cannot run functions, only commands")

    def submit_command(self, task: CommandTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        """Starts a command on `num_nodes` nodes and returns at once.

        Args:
            task: The command.
            num_nodes: Number of nodes.
            devices_per_node: Number of devices per node.

        Raises:
            ProbeError: The command cannot be started, or this launcher cannot run commands.
            ValueError: The number of ranks is 0.
        """
        raise ProbeError(f"{type(self).__name__} cannot run commands, only functions")

    @abstractmethod
    def poll(self, handle: JobHandle) -> JobStatus:
        """Returns the state of a job, with the messages of ranks since the last poll."""

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None:
        """Ends a job and all its processes; does nothing if the job has ended.

        Ranks are killed at once. A command gets SIGTERM, and SIGKILL after its grace period. While the
        command is ending, `poll` returns RUNNING; afterwards it returns CANCELLED.
        """

    @abstractmethod
    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        """Returns the log file of each process, with the output of that process.

        The keys are ranks, or nodes if a command runs once per node. The files need not exist yet. Use a
        `LogReader` to read them while the job runs.
        """

    @abstractmethod
    def trim_logs(self, handle: JobHandle) -> None:
        """Shortens long log files to the parts that `logs` returns, as soon as the job has ended."""

    @abstractmethod
    def close(self) -> None:
        """Ends every job; no more jobs can be submitted."""

    def logs(self, handle: JobHandle) -> dict[int, str]:
        """Returns the text of each log file that exists, by the keys of `log_files`.

        If a log file has more than 5 MiB, only its first MiB and its last four MiB are returned, with a line
        between them that gives the number of bytes left out.
        """
        files = self.log_files(handle).items()
        return {key: read_ends(file.path, start=file.start) for key, file in files if file.path.exists()}

    def warm(self, num_ranks: int) -> None:
        """Starts processes in advance if the launcher can reuse them for a later job; returns at once.

        Args:
            num_ranks: Number of ranks of the later job.
        """
        return

    def end_orphans(self, folder: Path) -> list[str]:
        """Ends jobs of an earlier tuner that was killed while they ran or waited for nodes.

        Args:
            folder: The `folder` of the jobs' tasks.

        Returns:
            The names of the jobs that were ended.
        """
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """First argument of a rank's function: its rank, the rendezvous, and a function to send messages.

    Args:
        rank: Number of this rank, from 0.
        num_ranks: Number of ranks of the job.
        local_rank: Number of this rank among the ranks of its host; also the number of its device.
        init_method: The `init_method` for `torch.distributed.init_process_group`, different for every job.
        folder: Folder of the task.
        send: Function that sends a message to the process that polls the job; the message counts as progress,
            too.
        secret: Random text that only the ranks of this job and the launcher know, different for every job.
            Ranks prove by it that they belong to the job.
    """

    rank: int
    num_ranks: int
    local_rank: int
    init_method: str
    folder: Path
    send: Callable[[dict[str, Any]], None]
    secret: str = field(repr=False)
