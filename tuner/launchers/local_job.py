"""The local launcher's record of one job: its processes, their messages, and how it ended."""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuner.launchers.launcher import JobHandle, JobState, JobStatus, RankFailure
from tuner.launchers.log_ends import read_ends, trim_file
from tuner.launchers.log_reader import LogFile
from tuner.launchers.warm_ranks import WarmRank

_LOG_TAIL_LINES = 20


@dataclass(frozen=True, kw_only=True)
class _Fault:
    """A failure with what orders it among others.

    Args:
        echo: Whether it looks like the consequence of another rank's end.
        at: Monotonic seconds when it happened, as far as known.
        failure: The failure to report.
    """

    echo: bool
    at: float
    failure: RankFailure


@dataclass(kw_only=True)
class LocalJob:
    """A running or ended job.

    Args:
        handle: Names it.
        ranks: Its processes, by rank.
        rendezvous: File through which the ranks find each other.
        submitted_at: Monotonic seconds.
        grace_seconds: How long to wait for other ranks after a failure.
        log_starts: Rank to where in its log file this job begins.
        tolerates_rank_loss: Whether it continues without ranks that were killed.
        places: Each rank's place among all ranks of this host, which names its device.
    """

    handle: JobHandle
    ranks: list[WarmRank]
    rendezvous: Path
    submitted_at: float
    grace_seconds: float
    log_starts: Mapping[int, int]
    tolerates_rank_loss: bool = False
    places: tuple[int, ...] = ()
    state: JobState = JobState.PENDING
    recorded: dict[int, int] | None = None
    is_trimmed: bool = False
    _messages: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    _results: dict[int, Any] = field(default_factory=dict)
    _faults: dict[int, _Fault] = field(default_factory=dict)
    _entered_at: dict[int, float] = field(default_factory=dict)
    _heard_at: float = 0.0
    _failing_since: float | None = None
    _returning_since: float | None = None

    def __post_init__(self) -> None:
        self._heard_at = self.submitted_at

    def listen(self, *, server_words: str) -> None:
        """Takes in what ranks said and which of them died, and draws the conclusion.

        Args:
            server_words: What the fork server printed, where it is dead.
        """
        for rank, process in enumerate(self.ranks):
            # Who is known to be dead has nothing more to say after this.
            ended = process.ended
            for frame in process.receive():
                self._heard_at = time.monotonic()
                self._take_in(rank, frame)
            if ended and rank not in self._results and rank not in self._faults:
                self._faults[rank] = self._death(rank, process.exit_code, server_words)
        self._conclude()

    def take_status(self) -> JobStatus:
        """The state of the job; messages are handed out once."""
        messages, self._messages = tuple(self._messages), []
        faults = sorted(self._faults.values(), key=lambda fault: (fault.echo, fault.at))
        succeeded = self.state is JobState.SUCCEEDED
        return JobStatus(
            state=self.state,
            messages=messages,
            results=dict(sorted(self._results.items())) if succeeded else {},
            failures=tuple(fault.failure for fault in faults),
            seconds_since_progress=time.monotonic() - self._heard_at,
            startup_seconds=self._startup_seconds(),
        )

    def processes(self) -> dict[int, int]:
        """Rank to process number, where one is known."""
        return {rank: found.process for rank, found in enumerate(self.ranks) if found.process is not None}

    def logs(self) -> dict[int, str]:
        """What each rank printed since this job began."""
        return {rank: self._log(rank) for rank in range(self.handle.num_ranks)}

    def log_files(self) -> dict[int, LogFile]:
        """Where that is stored."""
        return {
            rank: LogFile(path=self._log_path(rank), start=self.log_starts.get(rank, 0))
            for rank in range(self.handle.num_ranks)
        }

    def trim_logs(self) -> None:
        """Leaves the beginning and the end of what each rank printed since this job began."""
        for log_file in self.log_files().values():
            trim_file(log_file.path, start=log_file.start)

    def _take_in(self, rank: int, frame: Mapping[str, Any]) -> None:
        match frame["kind"]:
            case "message":
                self._messages.append((rank, frame["message"]))
            case "entered":
                self._entered_at[rank] = frame["at"]
            case "result":
                self._results[rank] = frame["result"]
            case "failure":
                failure = RankFailure(rank=rank, reason=frame["reason"].strip(), exit_code=1)
                self._faults[rank] = _Fault(echo=frame["echo"], at=frame["at"], failure=failure)

    def _conclude(self) -> None:
        now = time.monotonic()
        if self.tolerates_rank_loss and self._goes_on_without(now):
            return
        if self._faults and self._failing_since is None:
            self._failing_since = now
        heard_of_all = len(self._results) + len(self._faults) == len(self.ranks)
        if self._failing_since is None:
            if heard_of_all:
                self.state = JobState.SUCCEEDED
            elif len(self._entered_at) == len(self.ranks):
                self.state = JobState.RUNNING
        elif heard_of_all or now - self._failing_since >= self.grace_seconds:
            self.state = JobState.FAILED

    def _goes_on_without(self, now: float) -> bool:
        """Whether the ranks that were killed are no reason to end; it may be that the others are done."""
        died = {rank for rank, fault in self._faults.items() if (fault.failure.exit_code or 0) < 0}
        if len(died) < len(self._faults) or len(died) == len(self.ranks):
            return False
        if self._results and self._returning_since is None:
            self._returning_since = now
        left = len(self.ranks) - len(died) - len(self._results)
        # Whoever does not return after the others is stopped, or hangs: nobody waits for it any more.
        late = self._returning_since is not None and now - self._returning_since >= self.grace_seconds
        if self._results and (left == 0 or late):
            self.state = JobState.SUCCEEDED
        elif len(self._entered_at.keys() | died) == len(self.ranks):
            self.state = JobState.RUNNING
        return True

    @property
    def returned(self) -> list[WarmRank]:
        """The processes whose function returned: those that can take another job."""
        return [process for rank, process in enumerate(self.ranks) if rank in self._results]

    def _startup_seconds(self) -> float | None:
        if len(self._entered_at) < len(self.ranks) and not (self.tolerates_rank_loss and self._results):
            return None
        return max(self._entered_at.values()) - self.submitted_at

    def _death(self, rank: int, exit_code: int | None, server_words: str) -> _Fault:
        if exit_code is None:
            reason = "its process ended together with the one that forked it"
            reason += f":\n{server_words}" if server_words else " (killed?)"
        elif exit_code < 0:
            reason = f"killed by {_signal_name(-exit_code)}"
            reason += " (out of memory?)" if -exit_code == signal.SIGKILL else ""
        else:
            reason = f"its process ended with exit code {exit_code} before the function returned"
        tail = "\n".join(self._log(rank).splitlines()[-_LOG_TAIL_LINES:])
        if tail:
            reason += f"\nlast lines of its log:\n{tail}"
        failure = RankFailure(rank=rank, reason=reason, exit_code=exit_code)
        return _Fault(echo=False, at=time.monotonic(), failure=failure)

    def _log(self, rank: int) -> str:
        return read_ends(self._log_path(rank), start=self.log_starts.get(rank, 0))

    def _log_path(self, rank: int) -> Path:
        return self.handle.folder / f"rank{rank}.log"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
