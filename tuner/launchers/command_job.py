"""Stores what `CommandLauncher` knows about a job from its backend, its nodes and its ranks."""

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
    """State of a job that was submitted. All times are seconds on the launcher's clock.

    Args:
        handle: Handle of the job.
        node_job: Description of the job for the backend.
        folder: Folder of the job, with the files that the tuner and the nodes share.
        backend_id: The identifier that the backend gave to the job.
        one_per: Whether the job has a single log file, one log file per node or one per rank.
        grace_seconds: Seconds between SIGTERM and SIGKILL.
        submitted_at: Time at which the job was submitted.
        ranks: Stores the reports of the ranks if the job runs a function; None if it runs a command.
        heartbeats: Maps each node to the number of its last heartbeat and the time when it was first read.
        pending_until: Last time at which the job waited for nodes; None if it never did.
        running_at: Time at which every node had started its processes; None before that time.
        gone_at: Time at which the backend first reported the end of the job; None before this report.
        last_status: Status of the job at the last poll; None before the first poll.
        final_status: Status of the job after its end; None before its end.
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
        """Stores when each node last reported, and when all nodes had started their processes.

        Args:
            nodes: Maps the number of each node that has ever reported to its last report.
            now: The present time on the launcher's clock, seconds.
        """
        for number, node in nodes.items():
            if self.heartbeats.get(number, (-1, 0.0))[0] != node.beats:
                self.heartbeats[number] = (node.beats, now)
        has_started = len(nodes) == self.node_job.num_nodes and all(
            node.state != "starting" for node in nodes.values()
        )
        if has_started and self.running_at is None:
            self.running_at = now

    def silent_nodes(self, nodes: Mapping[int, NodeStatus], now: float, limit_seconds: float) -> list[int]:
        """Returns the nodes that have not ended and have reported nothing for longer than a limit.

        Args:
            nodes: Maps the number of each node that has ever reported to its last report.
            now: The present time on the launcher's clock, seconds.
            limit_seconds: Longest time without a report, in seconds.
        """
        return [
            number
            for number, (_, at) in sorted(self.heartbeats.items())
            if not nodes[number].has_ended and now - at > limit_seconds
        ]

    @property
    def heard_at(self) -> float:
        """Time of the last report of any rank (of any node for a command), on the launcher's clock."""
        if self.ranks is not None:
            return max(self.ranks.heard_at, self.running_at or 0.0, self.pending_until or 0.0)
        waited_until = self.pending_until or self.submitted_at
        return max((at for _, at in self.heartbeats.values()), default=waited_until)

    @property
    def startup_seconds(self) -> float | None:
        """Seconds from the end of the wait for nodes until every rank or process had started.

        The value is None while some rank or process has not started.
        """
        started_at = self.running_at if self.ranks is None else self.ranks.entered_at
        return None if started_at is None else started_at - (self.pending_until or self.submitted_at)

    def listen(self, ranks: RankTracker, now: float) -> None:
        """Reads the reports of ranks since the last call, and the exit codes of ranks.

        Args:
            ranks: Stores the reports.
            now: The present time on the launcher's clock, seconds.
        """
        # Exit codes are read before the messages, so that no message of a rank that has exited is missed.
        exits = self.folder.rank_exits()
        for rank in range(self.handle.num_ranks):
            frames, self._offsets[rank] = self.folder.new_messages(rank, self._offsets.get(rank, 0))
            for frame in frames:
                ranks.take(rank, frame, now)
        for place, (rank, code) in enumerate(exits.items()):
            # If a rank was asked to end, its exit is not a failure.
            if code != -signal.SIGTERM and not ranks.has_ended(rank):
                ranks.take_exit(rank, code, log=self.folder.logs().get(rank, ""), at=float(place))


def with_ranks(
    ranks: RankTracker, state: JobState, failures: tuple[RankFailure, ...], now: float
) -> tuple[JobState, tuple[RankFailure, ...]]:
    """Returns the state of a job whose ranks run a function, and the failures of the job.

    Args:
        ranks: The reports of the ranks.
        state: State of the job according to its nodes and its backend.
        failures: Failures of the processes that the node agents have started.
        now: The present time on the launcher's clock, seconds.
    """
    if state in (JobState.PENDING, JobState.CANCELLED):
        return state, failures
    ended = ranks.state_on_nodes(state, now)
    if ended is JobState.SUCCEEDED:
        return ended, ()
    if ended is JobState.FAILED:
        return ended, ranks.failures or failures or (ranks.first_missing(),)
    return ended, ranks.failures if ended is JobState.RUNNING else (*failures, *ranks.failures)
