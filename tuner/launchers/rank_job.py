"""The tuner's side of ranks on a backend's nodes: what they receive, what they report, how they ended."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import sysconfig
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.launchers.job_folder import JobFolder
from tuner.launchers.launcher import JobState, RankFailure, RankTask

#: How long to wait for ranks of a job that tolerates rank loss, once the first has returned.
_LATE_SECONDS = 5.0
#: How long a result may take to be seen after its rank has ended.
_FILES_LATE_SECONDS = 5.0
_LOG_TAIL_LINES = 20


def rank_command(folder: Path, python: str) -> str:
    """Runs a rank of a job whose folder holds `ranks.json`.

    Paceline and what the tuner imports are found by the tuner's own import path, which must be there on the
    nodes as well; what the interpreter there has by itself is left to it.

    Args:
        folder: The job's folder.
        python: Interpreter on the nodes.
    """
    path = shlex.quote(os.pathsep.join(_own_import_path()))
    # -P: a working folder is no place to import from, whatever the names in it.
    program = shlex.join([python, "-P", "-m", "tuner.launchers.rank_program", str(folder)])
    return f'PYTHONPATH={path}"${{PYTHONPATH:+:$PYTHONPATH}}" exec {program}'


def _own_import_path() -> list[str]:
    """Where this process imports from, but for what comes with its interpreter."""
    names = ("stdlib", "platstdlib", "purelib", "platlib")
    installed = {Path(sysconfig.get_path(name)).resolve() for name in names}
    found = []
    for entry in sys.path:
        path = Path(entry or ".").resolve()
        if path.is_dir() and not any(path == place or place in path.parents for place in installed):
            found.append(str(path))
    return list(dict.fromkeys(found))


class RankJob:
    """What the ranks of one job have reported.

    Args:
        folder: The job's folder.
        task: What they run.
        num_ranks: How many they are.
        submitted_at: The launcher's clock.
    """

    def __init__(self, folder: JobFolder, task: RankTask, num_ranks: int, submitted_at: float) -> None:
        self._folder, self._tolerates_rank_loss, self._num_ranks = folder, task.tolerates_rank_loss, num_ranks
        self._offsets = dict.fromkeys(range(num_ranks), 0)
        self._messages: list[tuple[int, dict[str, Any]]] = []
        self._results: dict[int, Any] = {}
        self._failures: dict[int, dict[str, Any]] = {}
        self._entered: set[int] = set()
        self._returned_at: float | None = None
        self._ended_at: float | None = None
        self.entered_at: float | None = None
        self.heard_at = submitted_at

    def listen(self, now: float) -> None:
        """Takes in what ranks have said since the last time."""
        for rank in range(self._num_ranks):
            frames, self._offsets[rank] = self._folder.new_messages(rank, self._offsets[rank])
            for frame in frames:
                self.heard_at = now
                self._take_in(rank, frame)
        if self.entered_at is None and len(self._entered) == self._num_ranks:
            self.entered_at = now
        if self._returned_at is None and self._results:
            self._returned_at = now

    def take_messages(self) -> tuple[tuple[int, dict[str, Any]], ...]:
        """What came since the last time, handed out once."""
        messages, self._messages = tuple(self._messages), []
        return messages

    @property
    def results(self) -> Mapping[int, Any]:
        """What the function returned, by rank."""
        return dict(sorted(self._results.items()))

    def judge(
        self, state: JobState, failures: tuple[RankFailure, ...], now: float
    ) -> tuple[JobState, tuple[RankFailure, ...]]:
        """The state of the job.

        Args:
            state: As its nodes and the backend report.
            failures: The same.
            now: The launcher's clock.
        """
        if state in (JobState.PENDING, JobState.CANCELLED):
            return state, failures
        own = self._rank_failures()
        if state is JobState.RUNNING:
            is_late = self._returned_at is not None and now - self._returned_at > _LATE_SECONDS
            over = self._tolerates_rank_loss and is_late and not self._failures
            return (JobState.SUCCEEDED if over else state), own
        if state in (JobState.SUCCEEDED, JobState.FAILED):
            if len(self._results) == self._num_ranks or self._tolerates_these():
                return JobState.SUCCEEDED, ()
            self._ended_at = now if self._ended_at is None else self._ended_at
            if state is JobState.SUCCEEDED and not own and now - self._ended_at < _FILES_LATE_SECONDS:
                return JobState.RUNNING, ()
            return JobState.FAILED, own or failures or (self._silent(),)
        return state, (*failures, *own)

    def _take_in(self, rank: int, frame: Mapping[str, Any]) -> None:
        match frame["kind"]:
            case "message":
                self._messages.append((rank, frame["message"]))
            case "entered":
                self._entered.add(rank)
            case "result":
                self._results[rank] = frame["result"]
            case "failure":
                self._failures[rank] = dict(frame)

    def _tolerates_these(self) -> bool:
        """Whether all that returned nothing were killed, and others did return."""
        exits = self._folder.rank_exits()
        left = set(range(self._num_ranks)) - self._results.keys()
        return (
            self._tolerates_rank_loss and bool(self._results) and all(exits.get(rank, 0) < 0 for rank in left)
        )

    def _rank_failures(self) -> tuple[RankFailure, ...]:
        """Those that raised, and those that ended without a word; echoes of another's end last."""
        exits = self._folder.rank_exits()
        found: list[tuple[tuple[bool, float], RankFailure]] = []
        for place, (rank, code) in enumerate(exits.items()):
            # Who was asked to end did not fail.
            if rank not in self._failures and rank not in self._results and code != -signal.SIGTERM:
                failure = RankFailure(rank=rank, reason=self._death(rank, code), exit_code=code)
                found.append(((False, float(place)), failure))
        for rank, frame in self._failures.items():
            failure = RankFailure(rank=rank, reason=frame["reason"].strip(), exit_code=1)
            found.append(((frame["echo"], frame["at"]), failure))
        return tuple(failure for _, failure in sorted(found, key=lambda item: item[0]))

    def _death(self, rank: int, code: int) -> str:
        if code < 0:
            reason = (
                f"killed by {_signal_name(-code)}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
            )
        else:
            reason = f"its process ended with exit code {code} before the function returned"
        tail = "\n".join(self._folder.logs().get(rank, "").splitlines()[-_LOG_TAIL_LINES:])
        return reason + (f"\nlast lines of its log:\n{tail}" if tail else "")

    def _silent(self) -> RankFailure:
        rank = min(set(range(self._num_ranks)) - self._results.keys())
        return RankFailure(rank=rank, reason="it ended without a result and without an error")


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
