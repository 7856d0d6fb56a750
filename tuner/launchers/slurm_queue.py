"""Polls the states of SLURM jobs by squeue in the background, so that a slow controller does not block."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass

from tuner.domain.errors import ProbeError
from tuner.launchers.async_command import Answer, Question
from tuner.launchers.launcher import JobState
from tuner.launchers.scheduler_backend import BackendView

_ASK_EVERY_SECONDS = 1.5
_CANCEL_EVERY_SECONDS = 2.0
#: Longest time for which `close` waits until SLURM has accepted every scancel, seconds.
_CLOSE_SECONDS = 20.0
#: A job that is in state COMPLETING for more than these seconds counts as lost.
_COMPLETING_SECONDS = 120.0
#: A job counts as failed if a reason that prevents its start persists for these seconds.
_NEVER_SECONDS = 3.0
#: Seconds for which a submitted job may be missing in SLURM's list of jobs.
_UNSEEN_SECONDS = 10.0

_FIELDS = "name:64,jobid:24,state:24,restartcnt:12,reason:400"
_WIDTHS = (64, 24, 24, 12, 400)
#: Shell command that reads how a job ended. The command scontrol reads this in the first minutes after the
#: end; afterwards the command sacct does, for which SLURM must store accounting data.
_LAST_WORDS = 'scontrol show job -o "$0" || sacct -X -n -P -j "$0" -o JobIDRaw,State,ExitCode'

_MEMORY_RAN_OUT = "OUT_OF_MEMORY"
#: Maps each final state of a SLURM job (man squeue, JOB STATE CODES) to its state here and an explanation.
_ENDS: dict[str, tuple[JobState, str]] = {
    "COMPLETED": (JobState.SUCCEEDED, ""),
    "FAILED": (JobState.FAILED, ""),
    "CANCELLED": (JobState.LOST, "another user or an administrator cancelled the job"),
    "TIMEOUT": (JobState.TIMED_OUT, "the job reached SLURM's time limit: raise [cluster.slurm] time"),
    "DEADLINE": (JobState.TIMED_OUT, "the job could not end before its deadline"),
    _MEMORY_RAN_OUT: (JobState.FAILED, "the job ran out of memory: raise [cluster.slurm] extra.mem"),
    "NODE_FAIL": (JobState.LOST, "a node of the job died or does not respond"),
    "BOOT_FAIL": (JobState.LOST, "a node could not be booted"),
    "PREEMPTED": (JobState.LOST, "a job of higher priority got its nodes"),
    "REVOKED": (JobState.LOST, "another cluster has taken over the job"),
    # A job in one of these states may go on, but its measured times would be worthless.
    "SUSPENDED": (JobState.LOST, "SLURM suspended the job, so its times are invalid"),
    "STOPPED": (JobState.LOST, "SLURM stopped the job, so its times are invalid"),
    "REQUEUED": (JobState.LOST, "the job was put into the queue again"),
    "SPECIAL_EXIT": (JobState.LOST, "the job was put into the queue again, but is held there"),
    "REQUEUE_HOLD": (JobState.LOST, "the job was put into the queue again, but is held there"),
}
#: Final states after which the job still exists in SLURM, so that it must be cancelled.
_STAYS = ("SUSPENDED", "STOPPED", "REQUEUED", "SPECIAL_EXIT", "REQUEUE_HOLD")
_WAITS = ("PENDING", "CONFIGURING", "REQUEUE_FED", "RESV_DEL_HOLD")
#: Maps each reason for which a job can never start (man squeue, JOB REASON CODES) to an advice.
_NEVER: dict[str, str] = {
    "PartitionNodeLimit": "the partition does not allow so many nodes: lower [cluster] nodes",
    "PartitionTimeLimit": "the partition does not allow so much time: lower [cluster.slurm] time",
    "PartitionConfig": "the partition's nodes do not have the requested resources: choose another partition",
    "BadConstraints": "no node has the requested resources: see [cluster.slurm] gres, cpus_per_node, extra",
    "InvalidAccount": "the account is not valid: correct [cluster.slurm] account",
    "InvalidQOS": "the quality of service is not valid: correct [cluster.slurm] extra.qos",
    "AccountNotAllowed": "the partition does not accept this account: change one of them in [cluster.slurm]",
    "QOSNotAllowed": "the partition or account does not accept this quality of service: change extra.qos",
    "DependencyNeverSatisfied": "the dependency can never be met: correct [cluster.slurm] extra.dependency",
    "AssocMaxNodePerJobLimit": "the account may not use so many nodes: lower [cluster] nodes",
    "AssocMaxWallDurationPerJobLimit": "the account may not use so much time: lower [cluster.slurm] time",
    "QOSMaxNodePerJobLimit": "the quality of service does not allow so many nodes: lower [cluster] nodes",
    "QOSMaxWallDurationPerJobLimit": "the quality of service does not allow so much time: lower "
    "[cluster.slurm] time",
    "MaxMemPerLimit": "so much memory per CPU or node is not allowed: lower it in [cluster.slurm] extra",
}
#: Part of the reason if a partition does not accept an account, group or quality of service.
_NOT_ALLOWED = "can't use this partition"
#: Parts of error messages of a SLURM controller that may answer if asked again.
_MOMENTARY = (
    "Unable to contact slurm controller",
    "Connection refused",
    "Connection timed out",
    "timed out",
    "temporarily unable",
    "Communication connection failure",
    "Zero Bytes were transmitted",
    "Unable to establish control machine address",
    "Resource temporarily unavailable",
    "in standby mode",
    "Transport endpoint is not connected",
)


def is_momentary(words: str) -> bool:
    """Whether a SLURM command may succeed later, because its error says that the controller is not reachable.

    Any other error means that SLURM refuses the job.

    Args:
        words: Error message of the command.
    """
    return any(known.lower() in words.lower() for known in _MOMENTARY)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """One job in the output of the command squeue."""

    job_id: str
    state: str
    restarts: str
    reason: str


@dataclass(kw_only=True)
class _Watched:
    """A job that is polled, with its last known state."""

    job_id: str
    since: float
    view: BackendView
    seen: bool = False
    over: bool = False  # whether the job has also ended for SLURM
    never_since: float | None = None
    completing_since: float | None = None
    row: _Row | None = None
    last_words: Question | None = None


@dataclass(kw_only=True)
class _Cancel:
    """A job to cancel; the command scancel is repeated until SLURM has accepted it."""

    command: tuple[str, ...]
    not_before: float
    question: Question | None = None


class SlurmQueue:
    """Polls the states of this user's SLURM jobs, which are identified by their names.

    - The command squeue runs in the background, at most every 1.5 s. It lists all jobs of the user that the
      controller remembers, including jobs that have ended. It does not need accounting.
    - For a job that has ended, the command scontrol reads how it ended; if the controller no longer remembers
      the job, the command sacct does.

    Args:
        timeout_seconds: Seconds without a result of squeue after which `poll` raises an error.
        clock: Function that returns the seconds on a monotonic clock.
    """

    def __init__(
        self, *, timeout_seconds: float = 300.0, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout_seconds, self._clock = timeout_seconds, clock
        self._watched: dict[str, _Watched] = {}
        self._cancels: dict[str, _Cancel] = {}
        self._question: Question | None = None
        self._asked_at = -float("inf")
        self._silent_since: float | None = None
        self._silent_seconds = 0.0
        self._trouble = ""

    def find(self, name: str) -> str | None:
        """Waits for SLURM's list of jobs, and returns the number of the job with a name.

        Returns:
            The number; None if there is no such job or SLURM does not respond.
        """
        answer = Question(_squeue(), clock=self._clock).wait()
        found = _rows(answer.output).get(name) if answer.code == 0 else None
        return found[-1].job_id if found else None

    def poll(self, name: str, job_id: str) -> BackendView:
        """Returns the state that a job has in the last list of jobs from SLURM, without waiting.

        Args:
            name: Name of the job in SLURM.
            job_id: Number of the job; empty if unknown.

        Raises:
            ProbeError: SLURM has not responded within `timeout_seconds`.
        """
        watched = self._watch(name, job_id)
        self._advance()
        if self._silent_seconds > self._timeout_seconds and not watched.view.state.has_ended:
            raise ProbeError(
                f"SLURM has not answered for {self._silent_seconds:.0f} s ({self._trouble}): see by "
                "`sinfo` whether its controller runs, then start the same command again: it resumes where it "
                "stopped"
            )
        return watched.view

    def cancel(self, name: str, job_id: str, *, after_seconds: float = 0.0) -> None:
        """Cancels a job in the background, and repeats this until SLURM accepts it.

        Does nothing if the job has ended.

        Args:
            name: Name of the job in SLURM.
            job_id: Number of the job; empty if unknown.
            after_seconds: Seconds that the job may take to end by itself before it is cancelled.
        """
        if name in self._cancels or self._watch(name, job_id).over:
            return
        command = ("scancel", job_id) if job_id else ("scancel", f"--user={os.getuid()}", f"--name={name}")
        self._cancels[name] = _Cancel(command=command, not_before=self._clock() + after_seconds)
        self._advance()

    def close(self) -> None:
        """Waits until SLURM has accepted every cancellation, but at most 20 seconds."""
        until = time.monotonic() + _CLOSE_SECONDS
        while self._cancels and time.monotonic() < until:
            self._advance()
            time.sleep(0.05)
        for cancel in self._cancels.values():
            if cancel.question is not None:
                cancel.question.drop()
            warnings.warn(
                f"SLURM does not answer ({self._trouble}), so a job may still run; when SLURM answers "
                f"again, cancel the job by: {' '.join(cancel.command)}",
                stacklevel=2,
            )
        self._cancels.clear()
        if self._question is not None:
            self._question.drop()
            self._question = None
        for watched in self._watched.values():
            if watched.last_words is not None:
                watched.last_words.drop()
        self._watched.clear()

    def _watch(self, name: str, job_id: str) -> _Watched:
        if name not in self._watched:
            submitted = BackendView(state=JobState.PENDING, detail=f"{_job_words(job_id)} was submitted")
            self._watched[name] = _Watched(job_id=job_id, since=self._clock(), view=submitted)
        return self._watched[name]

    def _advance(self) -> None:
        """Reads the results of commands that have ended and starts new commands, without waiting."""
        now = self._clock()
        if self._question is not None:
            answer = self._question.answer()
            if answer is not None:
                self._take(answer, self._question.asked_at)
                self._question = None
        for watched in self._watched.values():
            self._take_last_words(watched)
        for name in list(self._cancels):
            self._pursue(name, self._cancels[name], now)
        wanted = any(
            not watched.over and (name in self._cancels or not watched.view.state.has_ended)
            for name, watched in self._watched.items()
        )
        if wanted and self._question is None and now - self._asked_at >= _ASK_EVERY_SECONDS:
            self._question, self._asked_at = Question(_squeue(), clock=self._clock), now

    def _take(self, answer: Answer, asked_at: float) -> None:
        if answer.code != 0:
            self._trouble = answer.errors or f"squeue ended with {answer.code}"
            self._silent_since = asked_at if self._silent_since is None else self._silent_since
            # The silence lasts until the last failed query: time without a query does not count.
            self._silent_seconds = self._clock() - self._silent_since
            return
        self._silent_since, self._silent_seconds = None, 0.0
        rows = _rows(answer.output)
        for name, watched in self._watched.items():
            # A list requested before the job was submitted says nothing about it.
            if not watched.over and watched.last_words is None and asked_at >= watched.since:
                found = [row for row in rows.get(name, ()) if watched.job_id in ("", row.job_id)]
                self._see(watched, found[-1] if found else None)

    def _see(self, watched: _Watched, row: _Row | None) -> None:
        now = self._clock()
        watched.row = row
        if row is None:
            if watched.view.state.has_ended:
                watched.over = True
            elif watched.seen or now - watched.since > _UNSEEN_SECONDS:
                self._ask_last_words(watched)
            return
        watched.seen, watched.job_id = True, row.job_id
        words = _job_words(row.job_id)
        if watched.view.state.has_ended:
            # The reported state is final; this only waits until SLURM has ended the job.
            watched.over = row.state in _ENDS and row.state not in _STAYS
        elif row.restarts not in ("", "0"):
            watched.view = BackendView(state=JobState.LOST, detail=f"{words} was put into the queue again")
        elif row.state == "COMPLETED":
            watched.view, watched.over = (
                BackendView(state=JobState.SUCCEEDED, detail=f"{words} is COMPLETED"),
                True,
            )
        elif row.state in _ENDS:
            self._ask_last_words(watched)
        elif row.state in _WAITS:
            watched.view = self._waits(watched, row, words, now)
        elif row.state == "COMPLETING":
            watched.completing_since = now if watched.completing_since is None else watched.completing_since
            if now - watched.completing_since > _COMPLETING_SECONDS:
                for_long = f"has been in state COMPLETING for {_COMPLETING_SECONDS:g} s"
                detail = f"{words} {for_long}: SLURM cannot end the processes of the job on its nodes"
                watched.view = BackendView(state=JobState.LOST, detail=detail)
        else:
            watched.view = BackendView(state=JobState.RUNNING, detail=f"{words} is {row.state}")

    def _waits(self, watched: _Watched, row: _Row, words: str, now: float) -> BackendView:
        reason = row.reason
        remedy = _NEVER.get(reason.partition(",")[0])
        if _NOT_ALLOWED in reason:
            remedy = "correct [cluster.slurm] account or partition"
        if remedy is None:
            watched.never_since = None
            said = "" if reason in ("", "None") else f" ({reason})"
            return BackendView(state=JobState.PENDING, detail=f"{words} is {row.state}{said}")
        # The reason may be temporary, such as nodes that were down.
        watched.never_since = now if watched.never_since is None else watched.never_since
        if now - watched.never_since < _NEVER_SECONDS:
            return BackendView(state=JobState.PENDING, detail=f"{words} is {row.state} ({reason}): {remedy}")
        return BackendView(
            state=JobState.FAILED, detail=f"{words} can never start ({row.state}, {reason}): {remedy}"
        )

    def _ask_last_words(self, watched: _Watched) -> None:
        if not watched.job_id:
            watched.view = BackendView(
                state=JobState.LOST, detail="SLURM has no job with this name, so the job is lost"
            )
            watched.over = True
            return
        watched.last_words = Question(("sh", "-c", _LAST_WORDS, watched.job_id), clock=self._clock)

    def _take_last_words(self, watched: _Watched) -> None:
        answer = None if watched.last_words is None else watched.last_words.answer()
        if answer is None:
            return
        watched.last_words = None
        if answer.code != 0 and watched.row is None and is_momentary(answer.errors):
            return  # the next list asks again
        said = _said(answer.output) if answer.code == 0 else {}
        row = watched.row
        state = (said.get("JobState") or (row.state if row else "")).partition(" ")[0].rstrip("+")
        words = _job_words(watched.job_id)
        if state not in _ENDS:
            if state:
                return  # it runs after all
            # SLURM has forgotten the job: only the files of the node agents tell how it ended.
            detail = f"SLURM does not remember {words.removeprefix('SLURM ')} any more"
            watched.view, watched.over = BackendView(state=JobState.LOST, detail=detail), True
            return
        end, meaning = _ENDS[state]
        details = [state]
        for key, none in (("Reason", "None"), ("ExitCode", "0:0")):
            value = said.get(key) or (row.reason if key == "Reason" and row else "")
            if value and value not in (none, state):
                details.append(f"{key}={value}")
        remedy = _NEVER.get(said.get("Reason", ""), meaning)
        detail = f"{words} ended: {' '.join(details)}" + (f"; {remedy}" if remedy else "")
        watched.view = BackendView(state=end, detail=detail, memory_ran_out=state == _MEMORY_RAN_OUT)
        watched.over = state not in _STAYS

    def _pursue(self, name: str, cancel: _Cancel, now: float) -> None:
        if cancel.question is not None:
            answer = cancel.question.answer()
            if answer is None:
                return
            cancel.question = None
            if answer.code is not None and not is_momentary(answer.errors):
                del self._cancels[name]
                return
            self._trouble = answer.errors
            cancel.not_before = now + _CANCEL_EVERY_SECONDS
            return
        if self._watched[name].over:
            del self._cancels[name]
        elif now >= cancel.not_before:
            cancel.question = Question(cancel.command, clock=self._clock)


def _squeue() -> tuple[str, ...]:
    return ("squeue", "--noheader", "--states=all", f"--user={os.getuid()}", f"--Format={_FIELDS}")


def _rows(output: str) -> dict[str, list[_Row]]:
    rows: dict[str, list[_Row]] = {}
    for line in output.splitlines():
        words, at = [], 0
        for width in _WIDTHS:
            words.append(line[at : at + width].strip())
            at += width
        name, job_id, state, restarts, reason = words
        rows.setdefault(name, []).append(_Row(job_id=job_id, state=state, restarts=restarts, reason=reason))
    return rows


def _said(output: str) -> dict[str, str]:
    """Parses the fields of the output of `scontrol show job -o`, or of a line of sacct."""
    if "JobState=" in output:
        pairs = (word.partition("=") for word in output.split())
        return {key: value for key, _, value in pairs}
    number, _, remainder = output.partition("\n")[0].partition("|")
    state, _, code = remainder.partition("|")
    return {"JobId": number, "JobState": state, "ExitCode": code}


def _job_words(job_id: str) -> str:
    return f"SLURM job {job_id}" if job_id else "SLURM's job"
