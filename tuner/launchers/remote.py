"""The launcher for trainers that Paceline cannot start: it offers each slice and waits for a trainer.

A trainer asks the server of Paceline for a slice (a part of a training) over HTTP, and reports its progress.
The launcher writes these reports to the file to which a script would write them that Paceline starts.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import Field

from tuner.domain.checkpoints import write_atomically
from tuner.domain.errors import JobError
from tuner.domain.job_queue import JobLease
from tuner.domain.remote_slices import RemoteLine, RemoteSlice, RemoteSlices, SliceEnd, SliceState
from tuner.domain.section import Duration
from tuner.launchers.launcher import (
    CommandTask,
    JobHandle,
    JobState,
    JobStatus,
    Launcher,
    RankFailure,
    check_num_ranks,
)
from tuner.launchers.log_reader import LogFile
from tuner.launchers.registry import ClusterSettings, LauncherEntry, LauncherSection

#: Seconds between two reads of a slice from the database. After new lines, it is read again at once, because
#: the server waits until the search has decided whether the trainer continues.
_POLL_SECONDS = 0.25
#: If a trainer pauses by itself, the search may need this many seconds to decide whether the slice is over.
_DECISION_SECONDS = 3.0
#: Limits of a slice; a trainer gets them without the prefix `until_`.
_LIMITS = ("samples", "steps", "seconds", "scores")
#: Variables of a command that are no values of the configuration, or that concern this host.
_OF_THIS_HOST = frozenset(
    {"python", "checkpoint", "metrics", "values", "output_folder", "scored_samples"}
    | {f"until_{name}" for name in _LIMITS}
)


class RemoteSection(LauncherSection):
    """`[cluster.remote]`: trainers that ask the server for slices."""

    lease: Duration = Field(
        default=120.0,
        description="time without a report after which another trainer gets the slice; longer than the time "
        "between two reports of a trainer",
    )
    offer_timeout: Duration = Field(
        default=86400.0,
        description="time without any trainer after which the search ends with what it has measured; it ends "
        "sooner if `budget.time` has passed since a trainer took the first slice",
    )


@dataclass(kw_only=True)
class _Offer:
    """A slice that was offered, and its state at the last poll; times are seconds on the launcher's clock."""

    slice_id: int
    handle: JobHandle
    task: CommandTask
    offered_at: float
    taken_at: float | None = None
    paused_at: float | None = None
    poll_at: float = 0.0
    num_written: int = 0
    checkpoint: str = ""
    is_cancelled: bool = False
    status: JobStatus = field(default_factory=lambda: JobStatus(state=JobState.PENDING))


class RemoteLauncher(Launcher):
    """Offers each command as a slice to remote trainers, instead of starting a process.

    - The command itself is not used. The trainer gets the values of the configuration.
    - A job is PENDING until a trainer takes its slice; then it is RUNNING. It is LOST if the lease of the
      trainer expires, or if no trainer takes a slice for too long: for `offer_timeout`, or for the duration
      of a lease once the time budget has passed on the wall clock since a trainer took the first slice.
    - The name of a trainer's checkpoint is written to the file to which a script saves its checkpoint.

    Args:
        slices: The slices in the database.
        lease: The right of this process to run the job. Slices that an earlier process offered are withdrawn.
        section: The section `[cluster.remote]` of the job file.
        metric: Name of the field with the score in the reports of the trainers.
        time_budget: Seconds of `budget.time`; None without a limit.
        clock: Returns the seconds on a monotonic clock.
    """

    def __init__(
        self,
        slices: RemoteSlices,
        lease: JobLease,
        section: RemoteSection,
        *,
        metric: str,
        time_budget: float | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._slices, self._lease, self._section, self._clock = slices, lease, section, clock
        self._metric, self._time_budget = metric, time_budget
        self._offers: dict[str, _Offer] = {}
        #: Last time at which a trainer ran a slice, and why offers have timed out since then (or empty).
        self._active_at, self._timed_out = clock(), ""
        #: Time at which a trainer took the first slice; None before.
        self._first_taken_at: float | None = None
        slices.withdraw_all(lease)

    def submit_command(self, task: CommandTask, *, num_nodes: int, devices_per_node: int) -> JobHandle:
        check_num_ranks(num_nodes, devices_per_node)
        slice_id = self._slices.offer(
            self._lease,
            _checkpoint_file(task).parents[1].name,
            self._instructions(task),
            lease_seconds=self._section.lease,
        )
        handle = JobHandle(
            identity=str(slice_id),
            num_nodes=num_nodes,
            num_ranks=num_nodes * devices_per_node,
            folder=task.folder,
        )
        now = self._clock()
        self._offers[handle.identity] = _Offer(slice_id=slice_id, handle=handle, task=task, offered_at=now)
        return handle

    def poll(self, handle: JobHandle) -> JobStatus:
        offer, now = self._offer(handle), self._clock()
        if offer.status.state.has_ended or now < offer.poll_at:
            return offer.status
        asks_to_stop = _stop_file(offer.task).exists()
        found, lines = self._slices.follow(
            offer.slice_id, after=offer.num_written, num_read=offer.num_written, stop=asks_to_stop
        )
        if found.trainer:
            self._active_at, self._timed_out = now, ""
            self._write(offer, found, lines)
            offer.taken_at = now if offer.taken_at is None else offer.taken_at
            self._first_taken_at = now if self._first_taken_at is None else self._first_taken_at
        # After new lines, the slice is read at once again, since the server waits for the decision.
        offer.poll_at = now if lines else now + _POLL_SECONDS
        status = self._status(offer, found, now, asks_to_stop=asks_to_stop)
        pending_seconds = (now if offer.taken_at is None else offer.taken_at) - offer.offered_at
        offer.status = replace(status, pending_seconds=pending_seconds)
        return offer.status

    def _status(self, offer: _Offer, found: RemoteSlice, now: float, *, asks_to_stop: bool) -> JobStatus:
        """Returns the status of a slice, without `pending_seconds`."""
        if offer.is_cancelled:
            return JobStatus(state=JobState.CANCELLED)
        if found.state is SliceState.OFFERED:
            return self._waiting(offer, now, asks_to_stop=asks_to_stop)
        if found.state is SliceState.LEASED:
            return JobStatus(state=JobState.RUNNING)
        if found.end is SliceEnd.COMPLETED or (found.end is SliceEnd.PAUSED and asks_to_stop):
            return JobStatus(state=JobState.SUCCEEDED)
        if found.end is SliceEnd.FAILED:
            reason = found.reason or "the trainer gave no reason"
            return JobStatus(state=JobState.FAILED, failures=(RankFailure(rank=0, reason=reason),))
        if found.end is SliceEnd.PAUSED:
            # The last lines may have reached a limit of the slice. The search decides this after this poll.
            offer.paused_at = now if offer.paused_at is None else offer.paused_at
            if now - offer.paused_at < _DECISION_SECONDS:
                return JobStatus(state=JobState.RUNNING)
        detail = found.reason or f"the trainer {found.trainer} paused before the end of its slice"
        return JobStatus(state=JobState.LOST, detail=detail)

    def _waiting(self, offer: _Offer, now: float, *, asks_to_stop: bool) -> JobStatus:
        """Returns the status of a slice that no trainer has taken; withdraws it if it is not needed."""
        if asks_to_stop:
            self._slices.withdraw(offer.slice_id)
            return JobStatus(state=JobState.CANCELLED)
        waited = now - max(self._active_at, offer.offered_at)
        self._timed_out = self._timed_out or self._overdue(now, waited)
        if self._timed_out:
            self._slices.withdraw(offer.slice_id)
            return JobStatus(state=JobState.LOST, detail=self._timed_out)
        return JobStatus(state=JobState.PENDING, detail="a trainer")

    def _overdue(self, now: float, waited: float) -> str:
        """Returns why the search does not wait any longer for a trainer; empty if it still waits.

        Args:
            now: Present time on the launcher's clock, seconds.
            waited: Seconds without any trainer.
        """
        timeout, budget = self._section.offer_timeout, self._time_budget
        if waited > timeout:
            return (
                f"no trainer took a slice for {timeout:g} s: start a trainer, or raise "
                "cluster.remote.offer_timeout"
            )
        if budget is None or self._first_taken_at is None or now - self._first_taken_at <= budget:
            return ""
        if waited <= self._section.lease:  # a trainer that is alive asks or reports within this time
            return ""
        return (
            f"no trainer took a slice for {waited:.0f} s, and budget.time = {budget:g} s has passed since a "
            "trainer took the first slice: start a trainer, or raise budget.time"
        )

    def cancel(self, handle: JobHandle) -> None:
        offer = self._offer(handle)
        if not offer.status.state.has_ended:
            offer.is_cancelled, offer.poll_at = True, 0.0
            self._slices.withdraw(offer.slice_id)

    def log_files(self, handle: JobHandle) -> dict[int, LogFile]:
        return {}

    def trim_logs(self, handle: JobHandle) -> None:
        return

    def close(self) -> None:
        for offer in self._offers.values():
            self.cancel(offer.handle)

    def _instructions(self, task: CommandTask) -> dict[str, Any]:
        """Returns what a trainer needs to know about a slice."""
        stated = json.loads(Path(task.environment["PACELINE_VALUES"]).read_text())
        checkpoint = _checkpoint_file(task)
        resumes = bool(task.environment["PACELINE_RESUMED"])
        return {
            "values": {name: value for name, value in stated.items() if name not in _OF_THIS_HOST},
            "purpose": task.environment["PACELINE_PURPOSE"],
            "metric": self._metric,
            "checkpoint": checkpoint.read_text() if resumes else None,
            "until": {name: stated[f"until_{name}"] or None for name in _LIMITS},
            "scored_samples": stated["scored_samples"],
        }

    @staticmethod
    def _write(offer: _Offer, found: RemoteSlice, lines: Sequence[RemoteLine]) -> None:
        """Writes the name of a new checkpoint and the new lines to the files that the prober reads."""
        if found.checkpoint and found.checkpoint != offer.checkpoint:
            offer.checkpoint = found.checkpoint
            data = found.checkpoint.encode()
            write_atomically(_checkpoint_file(offer.task), lambda file: file.write(data))
        texts = [json.dumps(_timed(line, found.trainer, lines)) for line in lines]
        if offer.taken_at is None:
            # Trainers always learn from the answer to a report whether they have to stop.
            texts.insert(0, json.dumps({"event": "asks"}))
        if texts:
            with Path(offer.task.environment["PACELINE_METRICS"]).open("a") as file:
                file.write("".join(f"{text}\n" for text in texts))
        offer.num_written = lines[-1].number if lines else offer.num_written

    def _offer(self, handle: JobHandle) -> _Offer:
        try:
            return self._offers[handle.identity]
        except KeyError:
            raise ValueError(f"job {handle.identity} was not submitted to this launcher") from None


def _timed(line: RemoteLine, trainer: str, lines: Sequence[RemoteLine]) -> Mapping[str, Any]:
    """Returns the fields of a line, with its time of arrival if the trainer gave no time.

    Lines that arrived in one report get no time; the prober spreads them over the time since the last report.
    """
    fields = line.data
    is_alone = sum(other.created_at == line.created_at for other in lines) == 1
    if "time" in fields or "process" in fields or not is_alone:
        return fields
    return {**fields, "time": line.created_at, "process": trainer}


def _checkpoint_file(task: CommandTask) -> Path:
    return Path(task.environment["PACELINE_CHECKPOINT"])


def _stop_file(task: CommandTask) -> Path:
    return Path(task.environment["PACELINE_STOP_FILE"])


def _create(_section: RemoteSection, _settings: ClusterSettings) -> Launcher:
    raise JobError(
        "cluster.launcher = 'remote' needs the service, since the trainers ask its server for work: start "
        "`paceline serve` and `paceline worker`, then submit the job with `paceline submit`"
    )


REMOTE = LauncherEntry(
    nodes_are="trainers elsewhere that ask the server of Paceline for work (docs/guides/ask_and_tell.md)",
    create=_create,
    section=RemoteSection,
    section_holds="times to wait for trainers",
)
