"""The contract of engines: how a job's nodes come to run their starters."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tuner.launchers.launcher import JobState


@dataclass(frozen=True, kw_only=True)
class NodeJob:
    """A job as an engine sees it: starters to be run on nodes.

    Args:
        identity: Unique among all jobs of all tuners.
        folder: The job's folder, the same path on every node; `node_agent.py` lies in it.
        num_nodes: Nodes it needs.
        devices_per_node: Devices of each.
        time_limit_seconds: What the nodes are wanted for at most; None for no limit.
        grace_seconds: What is needed beyond it to end in good order.
    """

    identity: str
    folder: Path
    num_nodes: int
    devices_per_node: int
    time_limit_seconds: float | None = None
    grace_seconds: float = 30.0

    @property
    def agent(self) -> Path:
        """The script that each node runs, with the folder and its number as arguments."""
        return self.folder / "node_agent.py"


@dataclass(frozen=True, kw_only=True)
class BackendView:
    """How an engine sees a job.

    Args:
        state: PENDING while it waits for nodes, RUNNING while it has them, else how it ended as far as
            the engine knows.
        detail: Its words, such as why the job waits; empty where it has none.
    """

    state: JobState
    detail: str = ""


class SchedulerBackend(ABC):
    """Runs a job's starters, one a node; knows nothing of what they run.

    A starter tells by files how its node stands (`node_agent.py`). The engine gives it nodes, tells
    whether it waits for them, and takes them away.
    """

    #: As in `cluster.launcher`.
    name: str

    @abstractmethod
    def begin(self, job: NodeJob) -> str:
        """Asks for nodes and returns at once.

        Returns:
            What the engine knows the job by, also in a later process.

        Raises:
            ProbeError: The engine cannot be reached, or refuses the job.
        """

    @abstractmethod
    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        """How the engine sees the job now; never waits for it.

        Raises:
            ProbeError: The engine cannot be reached, and not for a moment only.
        """

    @abstractmethod
    def end(self, job: NodeJob, backend_id: str) -> None:
        """Takes the nodes away whatever runs there; a job that has ended is left alone."""

    @abstractmethod
    def close(self) -> None:
        """Ends what the engine keeps for itself."""

    def main_address(self, job: NodeJob) -> str | None:
        """By what name the others reach the first node; None where that node shall find out."""
        return None
