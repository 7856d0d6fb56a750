"""Polls the states of SLURM jobs by squeue in the background, so that a slow controller blocks nothing."""

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
#: How long `close` waits until SLURM has accepted every scancel.
_CLOSE_SECONDS = 20.0
#: A job that is COMPLETING for longer counts as lost.
_COMPLETING_SECONDS = 120.0
#: How long a reason that keeps a job from starting must persist before the job counts as failed.
_NEVER_SECONDS = 3.0
#: How long a submitted job may be missing in SLURM's list.
_UNSEEN_SECONDS = 10.0

_FIELDS = "name:64,jobid:24,state:24,restartcnt:12,reason:400"
_WIDTHS = (64, 24, 24, 12, 400)
#: Asks for the end of one job: scontrol remembers it for some minutes, sacct if there is accounting.
_LAST_WORDS = 'scontrol show job -o "$0" || sacct -X -n -P -j "$0" -o JobIDRaw,State,ExitCode'

_MEMORY_RAN_OUT = "OUT_OF_MEMORY"
#: States of a job that has ended (man squeue, JOB STATE CODES), and what each means.
_ENDS: dict[str, tuple[JobState, str]] = {
    "COMPLETED": (JobState.SUCCEEDED, ""),
    "FAILED": (JobState.FAILED, ""),
    "CANCELLED": (JobState.LOST, "somebody else cancelled it"),
    "TIMEOUT": (JobState.TIMED_OUT, "SLURM's time limit was used up: raise [cluster.slurm] time"),
    "DEADLINE": (JobState.TIMED_OUT, "it could not end before its deadline"),
    _MEMORY_RAN_OUT: (JobState.FAILED, "it ran out of memory: ask for more with [cluster.slurm] extra.mem"),
    "NODE_FAIL": (JobState.LOST, "one of its nodes died or does not answer"),
    "BOOT_FAIL": (JobState.LOST, "a node could not be booted"),
    "PREEMPTED": (JobState.LOST, "a job of higher priority took its nodes"),
    "REVOKED": (JobState.LOST, "another cluster took it"),
    # For SLURM these are no ends, but what was measured would be worthless.
    "SUSPENDED": (JobState.LOST, "SLURM suspended it, so its times mean nothing"),
    "STOPPED": (JobState.LOST, "SLURM stopped it, so its times mean nothing"),
    "REQUEUED": (JobState.LOST, "it was put into the queue again"),
    "SPECIAL_EXIT": (JobState.LOST, "it was put into the queue again, held"),
    "REQUEUE_HOLD": (JobState.LOST, "it was put into the queue again, held"),
}
#: States after which SLURM still has the job, so that it must be cancelled.
_STAYS = ("SUSPENDED", "STOPPED", "REQUEUED", "SPECIAL_EXIT", "REQUEUE_HOLD")
_WAITS = ("PENDING", "CONFIGURING", "REQUEUE_FED", "RESV_DEL_HOLD")
#: Reasons (man squeue, JOB REASON CODES) that waiting does not change, and what to do.
_NEVER: dict[str, str] = {
    "PartitionNodeLimit": "the partition does not give so many nodes: lower [cluster] nodes",
    "PartitionTimeLimit": "the partition does not give so much time: lower the slice or [cluster.slurm] time",
    "PartitionConfig": "the partition's nodes do not have what is asked for",
    "BadConstraints": "no node has what is asked for: see [cluster.slurm] gres, cpus_per_node and extra",
    "InvalidAccount": "see [cluster.slurm] account",
    "InvalidQOS": "see [cluster.slurm] extra.qos",
    "AccountNotAllowed": "the partition does not take this account",
    "QOSNotAllowed": "the partition or account does not take this quality of service",
    "DependencyNeverSatisfied": "see [cluster.slurm] extra.dependency",
    "AssocMaxNodePerJobLimit": "the account may not have so many nodes: lower [cluster] nodes",
    "AssocMaxWallDurationPerJobLimit": "the account may not have so much time",
    "QOSMaxNodePerJobLimit": "the quality of service does not give so many nodes: lower [cluster] nodes",
    "QOSMaxWallDurationPerJobLimit": "the quality of service does not give so much time",
    "MaxMemPerLimit": "so much memory a CPU or node is not allowed: see [cluster.slurm] extra",
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
    """Whether an error means that SLURM cannot be reached at the moment, rather than that it refuses."""
    return any(known.lower() in words.lower() for known in _MOMENTARY)


@dataclass(frozen=True, kw_only=True)
class _Row:
    """A line of squeue."""

    job_id: str
    state: str
    restarts: str
    reason: str


@dataclass(kw_only=True)
class _Watched:
    """A job and what is known of it."""

    job_id: str
    since: float
    view: BackendView
    seen: bool = False
    over: bool = False  # for SLURM, too
    never_since: float | None = None
    completing_since: float | None = None
    row: _Row | None = None
    last_words: Question | None = None


@dataclass(kw_only=True)
class _Cancel:
    """A job to cancel; scancel is repeated until SLURM has accepted it."""

    command: tuple[str, ...]
    not_before: float
    question: Question | None = None


class SlurmQueue:
    """SLURM's list of this user's jobs, by the jobs' names, which are unique.

    One squeue, at most every 1.5 s and in the background, lists all jobs of this user that the controller
    remembers, ended ones too; it needs no accounting. For a job that has ended, one scontrol asks for the
    reason, or sacct if scontrol has forgotten the job.

    Args:
        timeout_seconds: `poll` raises an error if SLURM has not answered for longer.
        clock: Seconds, never going back.
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
        """Asks SLURM for the number of a job and waits; None if there is no such job, or no answer."""
        answer = Question(_squeue(), clock=self._clock).wait()
        found = _rows(answer.output).get(name) if answer.code == 0 else None
        return found[-1].job_id if found else None

    def poll(self, name: str, job_id: str) -> BackendView:
        """How SLURM sees a job by its last answer.

        Raises:
            ProbeError: It has not answered for long.
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
        """Cancels a job in the background, until SLURM has accepted it; does nothing if the job has ended.

        Args:
            name: The job's name.
            job_id: Its number, or empty if unknown.
            after_seconds: How long the job may take to end by itself.
        """
        if name in self._cancels or self._watch(name, job_id).over:
            return
        command = ("scancel", job_id) if job_id else ("scancel", f"--user={os.getuid()}", f"--name={name}")
        self._cancels[name] = _Cancel(command=command, not_before=self._clock() + after_seconds)
        self._advance()

    def close(self) -> None:
        """Waits for a while until SLURM has accepted every cancel."""
        until = time.monotonic() + _CLOSE_SECONDS
        while self._cancels and time.monotonic() < until:
            self._advance()
            time.sleep(0.05)
        for cancel in self._cancels.values():
            if cancel.question is not None:
                cancel.question.drop()
            warnings.warn(
                f"SLURM does not answer ({self._trouble}), so a job may be left; once it does: "
                f"{' '.join(cancel.command)}",
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
        """Takes the results of commands that have ended, and starts new ones; does not wait."""
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
            # From question to question: time in which nobody asked does not count.
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
                for_long = f"has been COMPLETING for {_COMPLETING_SECONDS:g} s"
                detail = f"{words} {for_long}: SLURM cannot end what runs there"
                watched.view = BackendView(state=JobState.LOST, detail=detail)
        else:
            watched.view = BackendView(state=JobState.RUNNING, detail=f"{words} is {row.state}")

    def _waits(self, watched: _Watched, row: _Row, words: str, now: float) -> BackendView:
        reason = row.reason
        remedy = _NEVER.get(reason.partition(",")[0])
        if _NOT_ALLOWED in reason:
            remedy = "see [cluster.slurm] account and partition"
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
            watched.view = BackendView(state=JobState.LOST, detail="SLURM knows no job of that name")
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
    """The fields of `scontrol show job -o`, or of a line of sacct."""
    if "JobState=" in output:
        pairs = (word.partition("=") for word in output.split())
        return {key: value for key, _, value in pairs}
    number, _, remainder = output.partition("\n")[0].partition("|")
    state, _, code = remainder.partition("|")
    return {"JobId": number, "JobState": state, "ExitCode": code}


def _job_words(job_id: str) -> str:
    return f"SLURM job {job_id}" if job_id else "SLURM's job"
