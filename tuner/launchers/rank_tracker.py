"""Stores the messages, results and failures of the ranks of one job, and computes the state of the job."""

from __future__ import annotations

import signal
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.launchers.launcher import JobState, RankFailure

_LOG_TAIL_LINES = 20


@dataclass(frozen=True, kw_only=True)
class _Failure:
    """The failure of a rank, and the data by which the failures of a job are ordered.

    Args:
        is_echo: Whether the failure looks like a consequence of another rank's failure.
        at: Time of the failure, seconds on a clock that is the same for all ranks of the job.
        failure: The failure to report.
    """

    is_echo: bool
    at: float
    failure: RankFailure


class RankTracker:
    """Stores the reports of the ranks of one job.

    A report is a dictionary `{"kind": ...}`. The kinds are `entered` when a rank enters its function,
    `message` for each message, and at the end `result` or `failure`. All times are seconds on the launcher's
    clock.

    Args:
        num_ranks: Number of ranks of the job.
        tolerates_rank_loss: Whether the job continues after some of its ranks were killed.
        submitted_at: Time at which the job was submitted.
        grace_seconds: Seconds to wait for the other ranks after a rank has failed, or, if the job tolerates
            rank loss, after a rank has returned.
    """

    def __init__(
        self, num_ranks: int, *, tolerates_rank_loss: bool, submitted_at: float, grace_seconds: float
    ) -> None:
        self._num_ranks, self._tolerates_rank_loss = num_ranks, tolerates_rank_loss
        self._grace_seconds = grace_seconds
        self._messages: list[tuple[int, dict[str, Any]]] = []
        self._results: dict[int, Any] = {}
        self._failures: dict[int, _Failure] = {}
        self._entered_at: dict[int, float] = {}
        self._returned_at: float | None = None
        self._failed_at: float | None = None
        self.heard_at = submitted_at

    def take(self, rank: int, frame: Mapping[str, Any], now: float) -> None:
        """Stores a report that a rank has sent, such as a message or its result.

        Args:
            rank: The rank that has sent the report.
            frame: The report.
            now: Time of the report.
        """
        self.heard_at = now
        match frame["kind"]:
            case "message":
                self._messages.append((rank, frame["message"]))
            case "entered":
                self._entered_at[rank] = now
            case "result":
                self._results[rank] = frame["result"]
                self._failures.pop(rank, None)
                self._returned_at = now if self._returned_at is None else self._returned_at
            case "failure":
                failure = RankFailure(rank=rank, reason=frame["reason"].strip(), exit_code=1)
                self._failures[rank] = _Failure(is_echo=frame["echo"], at=frame["at"], failure=failure)

    def take_exit(
        self, rank: int, exit_code: int | None, *, log: str, at: float, reason: str | None = None
    ) -> None:
        """Registers that the process of a rank has ended.

        This is a failure unless the rank has reported a result or a failure before.

        Args:
            rank: The rank whose process has ended.
            exit_code: Exit code of the process, negative for a signal; None if unknown.
            log: The output of the rank.
            at: Time of the end, to order the failures; on the same clock as the reports of ranks.
            reason: The reason for which the process ended; None to derive it from the exit code.
        """
        if self.has_ended(rank):
            return
        reason = reason or _exit_reason(exit_code)
        tail = "\n".join(log.splitlines()[-_LOG_TAIL_LINES:])
        if tail:
            reason += f"\nlast lines of its log:\n{tail}"
        failure = RankFailure(rank=rank, reason=reason, exit_code=exit_code)
        self._failures[rank] = _Failure(is_echo=False, at=at, failure=failure)

    def has_ended(self, rank: int) -> bool:
        """Whether a rank has returned or failed."""
        return rank in self._results or rank in self._failures

    def take_messages(self) -> tuple[tuple[int, dict[str, Any]], ...]:
        """Returns the messages since the last call, as (rank, message)."""
        messages, self._messages = tuple(self._messages), []
        return messages

    @property
    def results(self) -> dict[int, Any]:
        """Maps each rank that has returned to the result of its function."""
        return dict(sorted(self._results.items()))

    @property
    def failures(self) -> tuple[RankFailure, ...]:
        """Failures of ranks in the order of time, but consequences of other failures come last."""
        ordered = sorted(self._failures.values(), key=lambda found: (found.is_echo, found.at))
        return tuple(found.failure for found in ordered)

    @property
    def entered_at(self) -> float | None:
        """Time at which the last rank entered its function; None if some rank has not entered yet."""
        if len(self._entered_at) < self._num_ranks and not (self._tolerates_rank_loss and self._results):
            return None
        return max(self._entered_at.values())

    def state(self, now: float) -> JobState:
        """Returns the state of a job on this host, from the reports and exit codes of its ranks.

        Args:
            now: The present time on the launcher's clock, seconds.
        """
        num_left = self._num_ranks - len(self._results) - len(self._failures)
        if self._failures and not self._tolerates_failures:
            self._failed_at = now if self._failed_at is None else self._failed_at
            if num_left == 0 or now - self._failed_at >= self._grace_seconds:
                return JobState.FAILED
        elif self._results and (num_left == 0 or self._is_overdue(now)):
            return JobState.SUCCEEDED
        has_entered = len(self._entered_at.keys() | self._failures.keys()) == self._num_ranks
        return JobState.RUNNING if has_entered else JobState.PENDING

    def state_on_nodes(self, state: JobState, now: float) -> JobState:
        """Returns the state of a job on other hosts, whose reports may appear late in a shared file system.

        Args:
            state: State of the job according to its nodes and its backend.
            now: The present time on the launcher's clock, seconds.
        """
        has_failed = bool(self._failures) and not self._tolerates_failures
        if state is JobState.RUNNING:
            return JobState.SUCCEEDED if not has_failed and self._is_overdue(now) else state
        if state not in (JobState.SUCCEEDED, JobState.FAILED):
            return state
        if self._results and not has_failed and len(self._results) + len(self._failures) == self._num_ranks:
            return JobState.SUCCEEDED
        self._failed_at = now if self._failed_at is None else self._failed_at
        if state is JobState.SUCCEEDED and not has_failed and now - self._failed_at < self._grace_seconds:
            return JobState.RUNNING
        return JobState.FAILED

    def first_missing(self) -> RankFailure:
        """Returns a failure for the first rank that has ended without reporting a result or an error."""
        rank = min(set(range(self._num_ranks)) - self._results.keys())
        return RankFailure(
            rank=rank, reason="the process of the rank ended without reporting a result or an error"
        )

    @property
    def _tolerates_failures(self) -> bool:
        """Whether the job continues without its failed ranks: they were killed, and not all ranks failed."""
        were_killed = all((found.failure.exit_code or 0) < 0 for found in self._failures.values())
        return self._tolerates_rank_loss and were_killed and len(self._failures) < self._num_ranks

    def _is_overdue(self, now: float) -> bool:
        """Whether the grace period is over that other ranks have to return after the first rank returned."""
        if not self._tolerates_rank_loss or self._returned_at is None:
            return False
        return now - self._returned_at >= self._grace_seconds


def _exit_reason(exit_code: int | None) -> str:
    if exit_code is None:
        return "its process ended together with the fork server, which may have been killed"
    if exit_code >= 0:
        return f"its process ended with exit code {exit_code} before its function returned"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return f"killed by {name}{' (out of memory?)' if -exit_code == signal.SIGKILL else ''}"
