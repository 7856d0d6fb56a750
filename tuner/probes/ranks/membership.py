"""Membership of an asynchronous run: the status of each rank, failure detection, and the leader."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

import numpy as np
import numpy.typing as npt

from tuner.strategies import deadline_seconds
from tuner.transport import STATUS_WIDTH, Transport

Array = npt.NDArray[np.float64]

#: Shorter silences are the scheduler's, where ranks share cores.
_LEAST_SILENCE_SECONDS = 1.0

#: A checkpoint waits so long for a rank that has fallen silent, since a busy host may hold it up.
_MAY_RETURN_SECONDS = 5.0


class Field(IntEnum):
    """Fields of a rank's status; those marked (leader) count only if the rank leads."""

    STEPS = 0
    """Steps it has made since the run started."""
    SAMPLES = 1
    """Samples it has seen since the run started."""
    STEP_MEDIAN = 2
    """Median of its step times, seconds; 0 while unknown."""
    STEP_DEVIATION = 3
    """Their median absolute deviation, seconds."""
    NON_FINITE = 4
    """1 once its loss stopped being finite."""
    TERM = 5
    """When it took the lead: the highest leads."""
    STARTED = 6
    """(leader) 1 once training may start."""
    READY = 19
    """1 once it has loaded its checkpoint."""
    EVALUATION = 7
    """(leader) Number of the next evaluation point."""
    EVALUATION_SAMPLES = 8
    """(leader) Samples of all ranks at which snapshots are taken."""
    COPIED = 9
    """Number of the last evaluation point it has taken its snapshot for."""
    PAUSE = 10
    """(leader) Number of the last pause requested."""
    PAUSE_SECONDS = 11
    """(leader) How long that pause may take at most."""
    RELEASED = 12
    """(leader) Number of the last pause that is over."""
    PAUSED = 13
    """Number of the last pause it has reached, with nothing of its own in flight."""
    SAVE = 14
    """(leader) Number of the pause in which parts of a checkpoint are written."""
    SAVED = 15
    """Number of the last pause whose part it has written."""
    ENDED = 16
    """(leader) Place of the slice's outcome among `ENDS`, from 1."""
    SECONDS = 18
    """Its training clock."""
    LEFT = 17
    """1 once it has noticed the end."""
    SCORES = 20
    """(leader) Number of new scores of this slice (`SlicePlan.scored_samples`)."""


#: What a new leader continues from the one before.
_TAKEN_OVER = (
    Field.STARTED,
    Field.EVALUATION_SAMPLES,
    Field.PAUSE,
    Field.SAVE,
    Field.ENDED,
    Field.SCORES,
)


class Membership:
    """One rank's view of all of them.

    A rank counts as live while its silence is shorter than median + k MAD of its own steps; one that falls
    silent is skipped by all until it reports again. The leader scores, ends slices and, where
    there is one, serves the center. It is the rank with the highest term; where it falls silent, the
    lowest live rank takes the lead with a new term, so that the old one, when it wakes, follows.

    Args:
        transport: Transfers the status table.
        first_silence_seconds: How long a rank may be silent before its steps are known.
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
        """Stores what each rank had seen when the slice started, also for ranks that never report."""
        if rank_samples:
            self._started_samples = np.array(rank_samples, dtype=float)

    @property
    def rank(self) -> int:
        """This rank."""
        return self._transport.rank

    @property
    def leads(self) -> bool:
        """Whether this rank leads."""
        return self.leader() == self.rank

    @property
    def total_samples(self) -> int:
        """Samples seen by all ranks together, lost ones included."""
        return sum(self.samples_of(rank) for rank in range(self._transport.num_ranks))

    def samples_of(self, rank: int) -> int:
        """Samples a rank has seen, as far as this one knows."""
        return int(max(self._rows[rank, Field.SAMPLES], self._started_samples[rank]))

    def poll(self) -> None:
        """Reads the status of all ranks, and takes the lead if it falls to this rank."""
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
        """Reports that this rank is alive, and refreshes: for a rank that waits for another."""
        self.post()
        self.poll()

    def post(self, **fields: float) -> None:
        """Changes fields of this rank's status, named as in `Field`, in lower case, and posts it."""
        for name, value in fields.items():
            self._own[Field[name.upper()]] = value
        self._rows[self.rank] = self._own
        self._transport.post(self._own)

    def own(self, field: Field) -> float:
        """What this rank posted last."""
        return float(self._own[field])

    def of(self, rank: int, field: Field) -> float:
        """What a rank posted last, as far as this one knows."""
        return float(self._rows[rank, field])

    def of_leader(self, field: Field) -> float:
        """What the leader posted last."""
        return self.of(self.leader(), field)

    def live_ranks(self) -> tuple[int, ...]:
        """Live ranks, this one among them, ascending."""
        return self._live

    def lost_ranks(self) -> tuple[int, ...]:
        """Lost ranks."""
        return tuple(rank for rank in range(self._transport.num_ranks) if rank not in self._live)

    def may_return(self) -> bool:
        """Whether a lost rank fell silent so recently that it may only have been held up."""
        return any(self._silent[rank] <= _MAY_RETURN_SECONDS for rank in self.lost_ranks())

    def leader(self) -> int:
        """The rank that leads, as far as this one knows."""
        highest = int(np.argmax(self._rows[:, Field.TERM]))
        return highest if highest in self._live else self._live[0]

    def all_live(self, field: Field, number: float) -> bool:
        """Whether every live rank has reached a number."""
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
            # It scores, saves, or writes its part, and says nothing meanwhile.
            steps += float(leader[Field.PAUSE_SECONDS])
        return max(steps, _LEAST_SILENCE_SECONDS)

    def _take_lead(self) -> None:
        before = self._rows[int(np.argmax(self._rows[:, Field.TERM]))]
        for field in _TAKEN_OVER:
            self._own[field] = before[field]
        if before[Field.EVALUATION] > 0:
            # Snapshots of the old leader's evaluation point have an unknown clock: take them again.
            self._own[Field.EVALUATION] = before[Field.EVALUATION] + 1
        # A pause that the old leader requested is over, and its purpose is requested again.
        self._own[Field.RELEASED] = before[Field.PAUSE]
        self.post(term=float(before[Field.TERM]) + 1)
