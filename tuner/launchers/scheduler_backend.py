"""The contract of scheduler backends, which give a job its nodes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tuner.launchers.launcher import JobState


@dataclass(frozen=True, kw_only=True)
class NodeJob:
    """A job as a backend sees it: node agents to run on nodes.

    Args:
        identity: Unique among all jobs of all tuners.
        folder: The job's folder, the same path on every node; `node_agent.py` lies in it.
        num_nodes: Nodes it needs.
        devices_per_node: Devices of each.
        time_limit_seconds: Longest time that the nodes are needed; None for no limit.
        grace_seconds: Additional time for the processes to save and end.
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
        agent, older = self.folder / "node_agent.py", self.folder / "node_starter.py"
        # The folder of a job that an earlier version of Paceline left has the script under its old name.
        return older if older.exists() and not agent.exists() else agent


@dataclass(frozen=True, kw_only=True)
class BackendView:
    """The state of a job as its backend reports it.

    Args:
        state: PENDING while it waits for nodes, RUNNING while it has them, else how it ended as far as
            the backend knows.
        detail: An explanation, such as why the job waits; may be empty.
        memory_ran_out: Whether the backend ended the job because its memory ran out.
    """

    state: JobState
    detail: str = ""
    memory_ran_out: bool = False


class SchedulerBackend(ABC):
    """Runs a job's node agents, one per node; knows nothing of what they run.

    A node agent reports the state of its node in files (`node_agent.py`). The backend starts node agents,
    reports whether the job still waits for nodes, and takes the nodes away.
    """

    #: As in `cluster.launcher`.
    name: str

    @abstractmethod
    def begin(self, job: NodeJob) -> str:
        """Requests nodes and returns at once.

        Returns:
            The backend's name of the job, valid in a later process too.

        Raises:
            ProbeError: The backend cannot be reached, or refuses the job.
        """

    @abstractmethod
    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        """The state of the job now; does not wait.

        Raises:
            ProbeError: The backend could not be reached for a longer time.
        """

    @abstractmethod
    def end(self, job: NodeJob, backend_id: str) -> None:
        """Takes the nodes away, even if processes still run; does nothing if the job has ended."""

    @abstractmethod
    def close(self) -> None:
        """Releases the backend's own resources."""

    def main_address(self, job: NodeJob) -> str | None:
        """The name or address by which the other nodes reach the first; None if the first node finds it."""
        return None
