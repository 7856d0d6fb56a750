"""The contract of launchers, which start ranks and commands on nodes and watch them."""

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
    """It exceeded its time limit."""
    LOST = "lost"
    """Its nodes were preempted, failed or became unreachable."""

    @property
    def has_ended(self) -> bool:
        """Whether the job has ended."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """A function every rank runs.

    Args:
        function: Import path `module:function`; called with a `RankContext` and the payload.
        payload: Data that JSON can hold, the same for all ranks. Messages and results must be such data too.
        folder: Existing folder for the ranks' logs and rendezvous file.
        tolerates_rank_loss: Whether the job continues without ranks that were killed, while others are left.
            An error that a rank raises ends the job in any case.
    """

    function: str
    payload: Mapping[str, Any]
    folder: Path
    tolerates_rank_loss: bool = False

    def __post_init__(self) -> None:
        if not all(self.function.partition(":")):
            raise ValueError(f"{self.function!r} is no import path; write module:function")


class OnePer(StrEnum):
    """How many processes of a command a job starts."""

    JOB = "job"
    """One, on the first node, which starts all others itself."""
    NODE = "node"
    """One on each node, as torchrun expects to be started."""
    RANK = "rank"
    """One per device, for a program that reads RANK and WORLD_SIZE."""


@dataclass(frozen=True, kw_only=True)
class CommandTask:
    """A shell command that the nodes of a job run, such as the user's own training script.

    Each process is run by `/bin/sh -c` in a process group of its own. Besides what the backend sets and
    `environment`, it gets `PACELINE_NODE_RANK`, `PACELINE_NUM_NODES`, `PACELINE_MAIN_ADDRESS` and
    `PACELINE_MAIN_PORT` (the first node and a port free there), `MASTER_ADDR` and `MASTER_PORT` (the same);
    one a rank also `RANK`, `WORLD_SIZE`, `LOCAL_RANK` and `LOCAL_WORLD_SIZE`, as torchrun would.

    Args:
        command: For the shell.
        one_per: How many processes to start.
        environment: Additional variables.
        working_folder: Working folder of the command; the same path on every node.
        folder: Existing folder for logs and files of the job; the same path on every node.
        grace_seconds: Time between SIGTERM and SIGKILL.
        time_limit_seconds: Longest time on the nodes, without the wait for them; None for no limit.
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
        ValueError: It has none.
    """
    if num_nodes < 1 or devices_per_node < 1:
        raise ValueError(f"a job needs at least one rank, got {num_nodes} nodes x {devices_per_node} devices")


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """Names a submitted job.

    Args:
        identity: Unique within the launcher.
        num_nodes: Nodes in use.
        num_ranks: Ranks started.
        folder: The task's folder.
    """

    identity: str
    num_nodes: int
    num_ranks: int
    folder: Path


@dataclass(frozen=True, kw_only=True)
class RankFailure:
    """How one rank failed.

    Args:
        rank: The rank.
        reason: Its traceback, or how its process ended.
        exit_code: Of the process; negative for a signal; None if the process still runs.
    """

    rank: int
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """The state of a job at the time of a poll.

    Args:
        state: Its state.
        messages: What ranks sent since the last poll, as (rank, message), each rank's in order.
        results: What the function returned, by rank, once it succeeded.
        failures: Every rank that failed, the first to fail first.
        seconds_since_progress: Since any rank last reported.
        startup_seconds: From submission until every rank had entered the function, or every process of a
            command was started, waiting for nodes left out; None before.
        pending_seconds: How long the job waited, or waits, for its nodes.
        detail: The backend's explanation, such as why the job waits; may be empty.
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
    """Starts jobs on nodes and watches them; no method waits for a job.

    A job is either a function that every rank runs, or a command. Every rank of a job gets its rank, the
    number of ranks and a rendezvous. A job ends as a whole: when one rank fails, the launcher ends the others
    and reports every rank's error. If the task tolerates rank loss, the results lack the ranks that were
    killed, and those that did not return some time after all others. No process outlives its launcher,
    however the launcher ends. Use a launcher from one thread only.

    A subclass overrides `submit`, `submit_command` or both.
    """

    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        """Starts `num_nodes * devices_per_node` ranks and returns at once.

        Raises:
            ProbeError: The ranks cannot be started, or the launcher runs no functions.
            TypeError: The payload holds what JSON cannot.
            ValueError: There is no rank.
        """
        raise ProbeError(f"{type(self).__name__} runs no functions")

    def submit_command(self, task: CommandTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        """Starts a command on `num_nodes` nodes and returns at once.

        Raises:
            ProbeError: The command cannot be started, or the launcher runs no commands.
            ValueError: There is no rank.
        """
        raise ProbeError(f"{type(self).__name__} runs no commands")

    @abstractmethod
    def poll(self, handle: JobHandle) -> JobStatus:
        """The state of the job, with the messages that came since the last poll."""

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None:
        """Ends the job and all its processes; does nothing if the job has ended.

        Ranks are killed. A command receives SIGTERM, and SIGKILL after its grace period; until then `poll`
        returns RUNNING, and afterwards CANCELLED.
        """

    @abstractmethod
    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        """The files that hold what each rank prints, by rank; by node for a command that runs once per node.

        A file may not exist yet. Pass them to a `LogReader` to read while the job runs.
        """

    @abstractmethod
    def trim_logs(self, handle: JobHandle) -> None:
        """Cuts the log files down to what `logs` returns, now or when the job has ended."""

    @abstractmethod
    def close(self) -> None:
        """Ends every job; the launcher takes no more jobs."""

    def logs(self, handle: JobHandle) -> dict[int, str]:
        """What each rank printed, by the keys of `log_files`; ranks without a log file are left out.

        Of a log of more than 5 MiB, the first MiB and the last four, with a line between them that says how
        many bytes are left out.
        """
        files = self.log_files(handle).items()
        return {key: read_ends(file.path, start=file.start) for key, file in files if file.path.exists()}

    def warm(self, num_ranks: int) -> None:
        """Prepares for a job of so many ranks, if that makes it start sooner; returns at once."""
        return

    def end_orphans(self, folder: Path) -> list[str]:
        """Ends jobs that a killed tuner left running or waiting.

        Args:
            folder: The `folder` of the jobs' tasks.

        Returns:
            The names of the jobs that were ended; none if no process outlives its tuner.
        """
        return []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """What a rank's function receives: its place among the ranks, and how to send messages.

    Args:
        rank: This rank, from 0.
        num_ranks: All ranks of the job.
        local_rank: This rank among those of its host, which selects its device.
        init_method: For `torch.distributed.init_process_group`, fresh for every job.
        folder: The task's folder.
        send: Sends a message to the process that polls the job; it also counts as progress.
    """

    rank: int
    num_ranks: int
    local_rank: int
    init_method: str
    folder: Path
    send: Callable[[dict[str, Any]], None]
