"""The interface of scheduler backends, which allocate a job's nodes and start a node agent on each node."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path

from tuner.launchers.launcher import JobState


@dataclass(frozen=True, kw_only=True)
class NodeJob:
    """A job for a scheduler backend: a node agent to run on each of several nodes.

    Args:
        identity: Name of the job, unique among all jobs of all tuners.
        folder: Folder of the job with the script `node_agent.py`; the same path on every node.
        num_nodes: Number of nodes that the job needs.
        devices_per_node: Number of devices that the job needs on each node.
        time_limit_seconds: Longest time for which the nodes are needed, seconds; None for no limit.
        grace_seconds: Additional time for the processes to save and end, seconds.
    """

    identity: str
    folder: Path
    num_nodes: int
    devices_per_node: int
    time_limit_seconds: float | None = None
    grace_seconds: float = 30.0

    @property
    def agent(self) -> Path:
        """Path of the script that each node runs; its arguments are the folder and the number of the node."""
        agent, older = self.folder / "node_agent.py", self.folder / "node_starter.py"
        # In the folder of a job that an earlier version of Paceline started, the script has its old name.
        return older if older.exists() and not agent.exists() else agent


@dataclass(frozen=True, kw_only=True)
class BackendView:
    """The state of a job as its backend reports it.

    Args:
        state: PENDING while the job waits for nodes, RUNNING while it has nodes, else how the job ended as
            far as the backend knows.
        detail: Explanation of the state, such as the reason for which the job waits; may be empty.
        memory_ran_out: Whether the backend ended the job because its memory ran out.
    """

    state: JobState
    detail: str = ""
    memory_ran_out: bool = False


class SchedulerBackend(ABC):
    """Allocates nodes for a job, and runs one node agent on each of them.

    A node agent runs the processes of the job on its node and reports its state in files (`node_agent.py`).
    The backend starts the node agents, reports whether the job still waits for nodes, and releases the nodes.
    """

    #: Name of the backend, as in `cluster.launcher` of the job file.
    name: str

    @abstractmethod
    def begin(self, job: NodeJob) -> str:
        """Requests nodes and returns at once.

        Returns:
            The identifier that the backend gives to the job; a later tuner can use it, too.

        Raises:
            ProbeError: The backend cannot be reached, or refuses the job.
        """

    @abstractmethod
    def poll(self, job: NodeJob, backend_id: str) -> BackendView:
        """Returns the state of a job without waiting.

        Args:
            job: The job.
            backend_id: The identifier that `begin` returned.

        Raises:
            ProbeError: The backend has not answered for so long that the job cannot be watched.
        """

    @abstractmethod
    def end(self, job: NodeJob, backend_id: str) -> None:
        """Releases the nodes of a job, even if processes still run; does nothing if the job has ended."""

    @abstractmethod
    def close(self) -> None:
        """Releases the backend's own resources."""

    def main_address(self, job: NodeJob) -> str | None:
        """Returns the address at which other nodes reach the first node; None if that node finds it."""
        return None
