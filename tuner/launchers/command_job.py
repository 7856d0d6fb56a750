"""A job of `CommandLauncher`: its backend's view, its nodes' heartbeats, its ranks' reports."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field

from tuner.launchers.job_folder import JobFolder, NodeStatus
from tuner.launchers.launcher import JobHandle, JobState, JobStatus, OnePer, RankFailure
from tuner.launchers.rank_tracker import RankTracker
from tuner.launchers.scheduler_backend import BackendView, NodeJob


@dataclass(kw_only=True)
class CommandJob:
    """A running or ended job. Times are seconds of the launcher's clock.

    Args:
        handle: Names it.
        node_job: The job as the backend sees it.
        folder: Files that the tuner and the nodes share.
        backend_id: The backend's name of the job.
        one_per: How many processes the job's user sees, each with a log file.
        grace_seconds: Between SIGTERM and SIGKILL.
        submitted_at: When it was submitted.
        ranks: Tracks the ranks of a function; None for a command.
        heartbeats: Each node's last heartbeat, and when it was first seen.
        pending_until: When the job last waited for nodes.
        running_at: When every node had started its processes.
        gone_at: When the backend was first seen to have no such job any more.
        last_status: From the last poll.
        final_status: Once the job has ended.
    """

    handle: JobHandle
    node_job: NodeJob
    folder: JobFolder
    backend_id: str
    one_per: OnePer
    grace_seconds: float
    submitted_at: float
    ranks: RankTracker | None = None
    is_trimmed: bool = False
    cancelled_at: float | None = None
    lease_at: float = 0.0
    heartbeats: dict[int, tuple[int, float]] = field(default_factory=dict)
    view: BackendView = field(default_factory=lambda: BackendView(state=JobState.PENDING))
    pending_until: float | None = None
    running_at: float | None = None
    gone_at: float | None = None
    polled_at: float = 0.0
    last_status: JobStatus | None = None
    final_status: JobStatus | None = None
    _offsets: dict[int, int] = field(default_factory=dict)

    def note_heartbeats(self, nodes: Mapping[int, NodeStatus], now: float) -> None:
        """Notes which nodes have reported since the last call, and whether all have started."""
        for number, node in nodes.items():
            if self.heartbeats.get(number, (-1, 0.0))[0] != node.beats:
                self.heartbeats[number] = (node.beats, now)
        has_started = len(nodes) == self.node_job.num_nodes and all(
            node.state != "starting" for node in nodes.values()
        )
        if has_started and self.running_at is None:
            self.running_at = now

    def silent_nodes(self, nodes: Mapping[int, NodeStatus], now: float, limit_seconds: float) -> list[int]:
        """The nodes that have not ended and have reported nothing for longer than the limit."""
        return [
            number
            for number, (_, at) in sorted(self.heartbeats.items())
            if not nodes[number].has_ended and now - at > limit_seconds
        ]

    @property
    def heard_at(self) -> float:
        """When ranks last reported; for a command, when nodes did."""
        if self.ranks is not None:
            return max(self.ranks.heard_at, self.running_at or 0.0, self.pending_until or 0.0)
        waited_until = self.pending_until or self.submitted_at
        return max((at for _, at in self.heartbeats.values()), default=waited_until)

    @property
    def startup_seconds(self) -> float | None:
        """From the end of the wait for nodes until every rank or process has started; None before."""
        started_at = self.running_at if self.ranks is None else self.ranks.entered_at
        return None if started_at is None else started_at - (self.pending_until or self.submitted_at)

    def listen(self, ranks: RankTracker, now: float) -> None:
        """Reads what ranks have reported since the last call, and which of them have exited."""
        # Read before the messages: a rank that has exited writes no more after this.
        exits = self.folder.rank_exits()
        for rank in range(self.handle.num_ranks):
            frames, self._offsets[rank] = self.folder.new_messages(rank, self._offsets.get(rank, 0))
            for frame in frames:
                ranks.take(rank, frame, now)
        for place, (rank, code) in enumerate(exits.items()):
            # A rank that was asked to end did not fail.
            if code != -signal.SIGTERM and not ranks.has_ended(rank):
                ranks.take_exit(rank, code, log=self.folder.logs().get(rank, ""), at=float(place))


def with_ranks(
    ranks: RankTracker, state: JobState, failures: tuple[RankFailure, ...], now: float
) -> tuple[JobState, tuple[RankFailure, ...]]:
    """The state of a job of ranks, with its failures.

    Args:
        ranks: What the ranks have reported.
        state: The job's state by its nodes and its backend.
        failures: Those of the node agents' processes.
        now: The launcher's clock.
    """
    if state in (JobState.PENDING, JobState.CANCELLED):
        return state, failures
    ended = ranks.state_on_nodes(state, now)
    if ended is JobState.SUCCEEDED:
        return ended, ()
    if ended is JobState.FAILED:
        return ended, ranks.failures or failures or (ranks.first_missing(),)
    return ended, ranks.failures if ended is JobState.RUNNING else (*failures, *ranks.failures)
