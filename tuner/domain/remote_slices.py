"""Records of slices that remote trainers run, and the interface of their database.

A remote trainer is a program that Paceline cannot start. It asks the server for a slice (a part of a
training), reports its progress, and finishes the slice. The worker that runs the search offers the slices and
reads the reports.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tuner.domain.job_queue import JobLease


class SliceState(StrEnum):
    """States of a slice of a remote trainer."""

    #: The slice waits for a trainer.
    OFFERED = "offered"
    #: A trainer runs the slice.
    LEASED = "leased"
    ENDED = "ended"


class SliceEnd(StrEnum):
    """How a slice of a remote trainer ended."""

    #: The trainer saved a checkpoint, if it can, and ended.
    PAUSED = "paused"
    #: The training came to its own end, such as its last epoch.
    COMPLETED = "completed"
    FAILED = "failed"
    #: The trainer reported nothing until its lease expired.
    LOST = "lost"
    #: The search does not need the slice any more.
    WITHDRAWN = "withdrawn"


class Answer(StrEnum):
    """What a trainer has to do next with its slice."""

    CONTINUE = "continue"
    #: Save a checkpoint, then finish the slice.
    STOP = "stop"
    #: The slice has ended, or another trainer runs its training: end, and ask for another slice.
    LOST = "lost"


@dataclass(frozen=True, kw_only=True)
class RemoteSlice:
    """A slice of a remote trainer.

    Args:
        slice_id: Number of the slice.
        job_id: Number of the job.
        probe: Name of the folder of the probe that the slice belongs to.
        state: State of the slice.
        request: What the trainer has to do next: `CONTINUE` or `STOP`.
        instructions: Values of the configuration, limits of the slice, and the checkpoint to resume.
        trainer: Name of the trainer; empty before the lease.
        checkpoint: Name of the newest checkpoint that the trainer has reported; empty without one.
        end: How the slice ended; None before the end.
        reason: Why the slice ended; empty if there is nothing to say.
        last_number: Number of the last line that was reported; 0 before the first.
        num_read: Number of the last line that the search has taken into account.
        lease_seconds: Seconds without a report after which the trainer loses the slice.
        lease_expires_at: Time at which the lease ends, seconds since the Unix epoch; None before the lease.
    """

    slice_id: int
    job_id: int
    probe: str
    state: SliceState
    request: Answer
    instructions: Mapping[str, Any]
    trainer: str
    checkpoint: str
    end: SliceEnd | None
    reason: str
    last_number: int
    num_read: int
    lease_seconds: float
    lease_expires_at: float | None


@dataclass(frozen=True, kw_only=True)
class RemoteLine:
    """One line that a trainer reported.

    Args:
        number: Number of the line within its slice, chosen by the trainer.
        created_at: Time of arrival, in seconds since the Unix epoch.
        data: Fields of the line, such as `step`, `samples` and `value`.
    """

    number: int
    created_at: float
    data: Mapping[str, Any]


class RemoteSlices(Protocol):
    """Interface of the slices of remote trainers. Every method is one transaction.

    All methods raise `StorageError` if the database cannot be read or written.
    """

    def offer(
        self, lease: JobLease, probe: str, instructions: Mapping[str, Any], *, lease_seconds: float
    ) -> int:
        """Offers a slice to the trainers of a job. Returns its number.

        Raises:
            LeaseLostError: Another worker has taken the job.
        """

    def follow(
        self, slice_id: int, *, after: int, num_read: int, stop: bool
    ) -> tuple[RemoteSlice, list[RemoteLine]]:
        """Returns a slice and its new lines. Ends the slice if the lease of its trainer has expired.

        Args:
            slice_id: Number of the slice.
            after: Only lines with a larger number are returned, in the order of their numbers.
            num_read: Number of the last line that the search has taken into account.
            stop: Whether to ask the trainer to stop.
        """

    def withdraw(self, slice_id: int) -> None:
        """Ends a slice that the search does not need any more; does nothing if it has ended."""

    def withdraw_all(self, lease: JobLease) -> int:
        """Ends all slices that earlier attempts of a job offered. Returns their number.

        Raises:
            LeaseLostError: Another worker has taken the job.
        """

    def slice(self, slice_id: int) -> RemoteSlice:
        """Returns a slice. Raises `NotFoundError` if there is none with this number."""

    def take(self, job_id: int, trainer: str) -> RemoteSlice | None:
        """Gives a trainer the slice that it already runs, or the oldest slice that is offered.

        Returns:
            The slice; None if no slice is offered at present.
        """

    def report(
        self, slice_id: int, number: int, lines: Sequence[Mapping[str, Any]], *, checkpoint: str | None = None
    ) -> Answer:
        """Adds lines to a slice and renews the lease of its trainer.

        Args:
            slice_id: Number of the slice.
            number: Number of the first line; the others follow. A line whose number is stored already is
                not stored again.
            lines: Fields of each line; may be empty.
            checkpoint: Name of a checkpoint that the trainer has saved; None if it saved none.

        Raises:
            NotFoundError: There is no such slice.
        """

    def finish(
        self, slice_id: int, end: SliceEnd, *, checkpoint: str | None = None, reason: str = ""
    ) -> Answer:
        """Ends a slice. Returns `CONTINUE`, which means that it is stored, or `LOST`.

        A repeated call returns the same answer as the first one.

        Raises:
            NotFoundError: There is no such slice.
        """


class TrainerStore(Protocol):
    """A database with the slices of remote trainers, such as `storage.Storage`."""

    @property
    def remote_slices(self) -> RemoteSlices:
        """The slices of remote trainers."""
