"""Tells asynchronous ranks which ranks still respond, and which of them is the leader that evaluates."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tuner.strategies import deadline_seconds
from tuner.transport import STATUS_WIDTH, Transport

Array = npt.NDArray[np.float64]

#: A rank is not treated as lost before it has posted no status for this number of seconds. If ranks share
#: cores, the operating system may interrupt a rank for some time.
_LEAST_SILENCE_SECONDS = 1.0

#: Seconds for which a checkpoint waits for a rank that has stopped responding. The rank's host may only be
#: busy.
_MAY_RETURN_SECONDS = 5.0

#: Longest time, in seconds, for which a rank that may leave waits for confirmations. Launchers end ranks that
#: return 2 seconds later than the first rank.
_CONFIRMATION_SECONDS = 0.5


class Field(IntEnum):
    """Fields of a rank's status. Fields marked (leader) are valid only in the leader's status."""

    STEPS = 0
    """Steps that the rank has made since the training started."""
    SAMPLES = 1
    """Samples that the rank has processed since the training started."""
    STEP_MEDIAN = 2
    """Median of the rank's step times, seconds; 0 if unknown."""
    STEP_DEVIATION = 3
    """Median absolute deviation of the rank's step times, seconds."""
    NON_FINITE = 4
    """1 after the rank's loss was infinite or NaN."""
    TERM = 5
    """Number that is higher for each new leader; the rank with the highest number is the leader."""
    STARTED = 6
    """(leader) 1 when training may start."""
    READY = 19
    """1 when the rank has loaded its checkpoint."""
    EVALUATION = 7
    """(leader) Number of the next evaluation point."""
    EVALUATION_SAMPLES = 8
    """(leader) Samples processed by all ranks at which the ranks take snapshots for the next evaluation."""
    COPIED = 9
    """Number of the last evaluation point for which the rank has copied its parameters (a snapshot)."""
    PAUSE = 10
    """(leader) Number of the last pause that the leader has requested; pauses are numbered from 1."""
    PAUSE_SECONDS = 11
    """(leader) Longest duration of the last requested pause, seconds."""
    RELEASED = 12
    """(leader) Number of the last pause that has ended."""
    PAUSED = 13
    """Number of the last pause in which the rank has stopped, after all its requests were replied to."""
    SAVE = 14
    """(leader) Number of the last pause in which the ranks must write their parts of a checkpoint."""
    SAVED = 15
    """Number of the last pause in which the rank has written its part of a checkpoint."""
    ENDED = 16
    """(leader) Index of the slice's outcome in `async_loop.ENDS`, counted from 1; 0 while the slice runs."""
    SECONDS = 18
    """Training time of the rank, seconds."""
    LEFT = 17
    """1 when the rank has noticed the end of the slice; 2 when it knows that all live ranks have."""
    SCORES = 20
    """(leader) Number of evaluations in this slice after more than `SlicePlan.scored_samples` samples."""


#: Fields that a new leader copies from the previous leader's status.
_TAKEN_OVER = (
    Field.STARTED,
    Field.EVALUATION_SAMPLES,
    Field.PAUSE,
    Field.SAVE,
    Field.ENDED,
    Field.SCORES,
)


class Membership:
    """The statuses of all ranks, as known to one rank.

    - A rank is live if its last status is not older than a limit. The limit depends on the median and the
      median absolute deviation of the rank's step times. All other ranks are lost, until they post a status
      again.
    - The leader evaluates and ends the slice. If the strategy has a parameter server, it runs on the leader.
    - The leader is the rank with the highest number in `Field.TERM`. If the leader is lost, the live rank
      with the lowest index becomes the leader and posts a higher number. When the old leader responds again,
      it is no longer the leader.

    Args:
        transport: Exchanges the statuses between the ranks.
        first_silence_seconds: Longest time without a status, in seconds, for a rank whose step times are
            unknown.
    """

    def __init__(self, transport: Transport, first_silence_seconds: float) -> None:
        self._transport = transport
        self._first_silence_seconds = first_silence_seconds
        self._own = np.zeros(STATUS_WIDTH)
        self._rows: Array = np.zeros((transport.num_ranks, STATUS_WIDTH))
        self._started_samples: Array = np.zeros(transport.num_ranks)
        self._live: tuple[int, ...] = tuple(range(transport.num_ranks))
        self._silent: Array = np.zeros(transport.num_ranks)
        if transport.rank == 0:
            self._own[Field.TERM] = 1

    def begin(self, rank_samples: Sequence[int]) -> None:
        """Stores how many samples each rank had processed before the slice; empty for a new training."""
        if rank_samples:
            self._started_samples = np.array(rank_samples, dtype=float)

    @property
    def rank(self) -> int:
        """Index of this rank."""
        return self._transport.rank

    @property
    def leads(self) -> bool:
        """Whether this rank is the leader."""
        return self.leader() == self.rank

    @property
    def total_samples(self) -> int:
        """Number of samples processed by all ranks together, lost ranks included."""
        return sum(self.samples_of(rank) for rank in range(self._transport.num_ranks))

    def samples_of(self, rank: int) -> int:
        """Returns how many samples a rank has processed, according to its newest known status."""
        return int(max(self._rows[rank, Field.SAMPLES], self._started_samples[rank]))

    def poll(self) -> None:
        """Reads the statuses of all ranks.

        If the leader is lost and this rank is the live rank with the lowest index, it becomes the leader.
        """
        self._rows = self._transport.statuses()
        self._rows[self.rank] = self._own
        silent = self._silent = self._transport.silent_seconds()
        self._live = tuple(
            rank
            for rank in range(self._transport.num_ranks)
            if rank == self.rank or silent[rank] <= self._longest_silence(rank)
        )
        if self.leads and self._own[Field.TERM] < self._rows[:, Field.TERM].max():
            self._take_lead()

    def refresh(self) -> None:
        """Posts this rank's status and reads all statuses.

        A waiting rank calls this method, so that the other ranks do not treat it as lost.
        """
        self.post()
        self.poll()

    def post(self, **fields: float) -> None:
        """Changes fields of this rank's status and posts it.

        Args:
            fields: Maps names of `Field` in lower case to their new values.
        """
        for name, value in fields.items():
            self._own[Field[name.upper()]] = value
        self._rows[self.rank] = self._own
        self._transport.post(self._own)

    def own(self, field: Field) -> float:
        """Returns one field of this rank's own status, such as its number of steps."""
        return float(self._own[field])

    def of(self, rank: int, field: Field) -> float:
        """Returns one field of the newest known status of a rank."""
        return float(self._rows[rank, field])

    def of_leader(self, field: Field) -> float:
        """Returns a field of the newest known status of the leader."""
        return self.of(self.leader(), field)

    def leave(self) -> Iterator[None]:
        """Yields until all live ranks have noticed the end of the slice, and know this of each other.

        The last statuses of a rank that ends may be lost. If a rank ended as soon as it knows that all ranks
        have noticed the end, another rank might not know it, and would wait for the rank that has ended. So
        each rank confirms that it knows it, and ends after all confirmations. A confirmation may also be
        lost; a rank waits only `_CONFIRMATION_SECONDS` for it.
        """
        for stage in (1, 2):
            self.post(left=stage)
            began = time.monotonic()
            while not self.all_live(Field.LEFT, stage):
                if stage == 2 and time.monotonic() - began > _CONFIRMATION_SECONDS:
                    return
                yield
                self.refresh()

    def live_ranks(self) -> tuple[int, ...]:
        """Returns the indices of the live ranks, ascending, this rank included."""
        return self._live

    def lost_ranks(self) -> tuple[int, ...]:
        """Returns the indices of the lost ranks, ascending."""
        return tuple(rank for rank in range(self._transport.num_ranks) if rank not in self._live)

    def may_return(self) -> bool:
        """Whether a rank has stopped responding only a short time ago, so it may be late rather than dead."""
        return any(self._silent[rank] <= _MAY_RETURN_SECONDS for rank in self.lost_ranks())

    def leader(self) -> int:
        """Returns the index of the leader, according to the newest known statuses."""
        highest = int(np.argmax(self._rows[:, Field.TERM]))
        return highest if highest in self._live else self._live[0]

    def all_live(self, field: Field, number: float) -> bool:
        """Whether the value of a field is at least `number` in the status of every live rank."""
        return all(self._rows[rank, field] >= number for rank in self._live)

    def _longest_silence(self, rank: int) -> float:
        row = self._rows[rank]
        highest = int(np.argmax(self._rows[:, Field.TERM]))
        if row[Field.STEP_MEDIAN] <= 0:
            return self._first_silence_seconds
        steps = deadline_seconds(float(row[Field.STEP_MEDIAN]), float(row[Field.STEP_DEVIATION]))
        leader = self._rows[highest]
        is_paused = leader[Field.PAUSE] > leader[Field.RELEASED]
        if is_paused and (rank == highest or row[Field.PAUSED] >= leader[Field.PAUSE]):
            # The rank evaluates, saves or writes its part of a checkpoint, and posts no status meanwhile.
            steps += float(leader[Field.PAUSE_SECONDS])
        return max(steps, _LEAST_SILENCE_SECONDS)

    def _take_lead(self) -> None:
        before = self._rows[int(np.argmax(self._rows[:, Field.TERM]))]
        for field in _TAKEN_OVER:
            self._own[field] = before[field]
        if before[Field.EVALUATION] > 0:
            # The training time of the old leader's snapshots is unknown: all ranks take new snapshots.
            self._own[Field.EVALUATION] = before[Field.EVALUATION] + 1
        # A pause that the old leader requested ends; this rank requests a new one if needed.
        self._own[Field.RELEASED] = before[Field.PAUSE]
        self.post(term=float(before[Field.TERM]) + 1)
