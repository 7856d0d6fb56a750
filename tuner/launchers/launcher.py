"""The contract of launchers: how ranks start, and nothing of what they do."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any


class JobState(StrEnum):
    """Where a submitted job stands."""

    PENDING = "pending"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def has_ended(self) -> bool:
        """Whether nothing of the job runs any more."""
        return self not in (JobState.PENDING, JobState.RUNNING)


@dataclass(frozen=True, kw_only=True)
class RankTask:
    """A function every rank runs.

    Args:
        function: Import path `module:function`; called with a `RankContext` and the payload.
        payload: Plain data that survive JSON, the same for all ranks; so are messages and results.
        folder: Where the ranks' logs and rendezvous file go; exists.
        outlives_ranks: Whether the job goes on without ranks that were killed, while others are left. An
            error that a rank raises ends it all the same.
    """

    function: str
    payload: Mapping[str, Any]
    folder: Path
    outlives_ranks: bool = False


@dataclass(frozen=True, kw_only=True)
class JobHandle:
    """Names a submitted job.

    Args:
        identity: Unique within the launcher.
        num_nodes: Nodes held.
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
        exit_code: Of the process; negative for a signal; None where the process goes on.
    """

    rank: int
    reason: str
    exit_code: int | None = None


@dataclass(frozen=True, kw_only=True)
class JobStatus:
    """What is known of a job now.

    Args:
        state: Where it stands.
        messages: What ranks sent since the last poll, as (rank, message), each rank's in order.
        results: What the function returned, by rank, once it succeeded.
        failures: Every rank that failed, the first to fail first.
        seconds_since_progress: Since any rank was last heard of.
        startup_seconds: From submission until every rank had entered the function; None before.
    """

    state: JobState
    messages: tuple[tuple[int, dict[str, Any]], ...] = ()
    results: Mapping[int, Any] = field(default_factory=dict)
    failures: tuple[RankFailure, ...] = ()
    seconds_since_progress: float = 0.0
    startup_seconds: float | None = None


class Launcher(ABC):
    """Starts ranks and watches them; never blocks on what they do.

    Every rank of a job is told its rank, the number of ranks and a rendezvous. A job ends as a
    whole: when one rank fails, the others are ended too, and every rank's own error is kept. Where the
    task says that it outlives ranks, those that are killed are missing among the results, and so are those
    that have not returned a while after all others. No process outlives its launcher, however that ends.
    """

    @abstractmethod
    def submit(self, task: RankTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        """Starts `num_nodes * devices_per_node` ranks and returns at once.

        Raises:
            ProbeError: The ranks cannot be started at all.
        """

    @abstractmethod
    def poll(self, handle: JobHandle) -> JobStatus:
        """Where the job stands, with the messages that came since the last poll."""

    @abstractmethod
    def cancel(self, handle: JobHandle) -> None:
        """Ends the job and all its ranks; a job that has ended is left alone."""

    @abstractmethod
    def logs(self, handle: JobHandle) -> dict[int, str]:
        """What each rank printed, by rank."""

    @abstractmethod
    def close(self) -> None:
        """Ends every rank; the launcher takes no more jobs."""


@dataclass(frozen=True, kw_only=True)
class RankContext:
    """What a rank's function is told of its place.

    Args:
        rank: This rank, from 0.
        num_ranks: All ranks of the job.
        local_rank: This rank among those of its host, which names its device.
        init_method: For `torch.distributed.init_process_group`, fresh for every job.
        folder: The task's folder.
        send: Sends a message of plain data to whoever polls the job; also a sign of progress.
    """

    rank: int
    num_ranks: int
    local_rank: int
    init_method: str
    folder: Path
    send: Callable[[dict[str, Any]], None]
