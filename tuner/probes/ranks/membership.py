"""Who takes part in a run without a barrier: where each rank stands, who is heard of, who leads."""

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


class Field(IntEnum):
    """What a rank posts of itself; those marked (leader) count only of the rank that leads."""

    STEPS = 0
    """Steps it has made since the run began."""
    SAMPLES = 1
    """Samples it has seen since the run began."""
    STEP_MEDIAN = 2
    """Median of its step times, seconds; 0 while unknown."""
    STEP_DEVIATION = 3
    """Their median absolute deviation, seconds."""
    NON_FINITE = 4
    """1 once its loss stopped being finite."""
    TERM = 5
    """When it took the lead: the highest leads."""
    STARTED = 6
    """(leader) 1 once training may begin."""
    READY = 19
    """1 once it has loaded what it goes on from."""
    EVALUATION = 7
    """(leader) Number of the mark that is next."""
    EVALUATION_SAMPLES = 8
    """(leader) Samples of all ranks at which copies are made."""
    COPIED = 9
    """Number of the last mark it has made its copy for."""
    PAUSE = 10
    """(leader) Number of the last rest asked for."""
    PAUSE_SECONDS = 11
    """(leader) How long that rest may take at most."""
    RELEASED = 12
    """(leader) Number of the last rest that is over."""
    RESTED = 13
    """Number of the last rest it has come to, with nothing of its own under way."""
    SAVE = 14
    """(leader) Number of the rest in which parts of a checkpoint are to be written."""
    SAVED = 15
    """Number of the last rest whose part it has written."""
    ENDED = 16
    """(leader) Place of the slice's outcome among `ENDS`, from 1."""
    SECONDS = 18
    """Its training clock."""
    LEFT = 17
    """1 once it has noticed the end."""


class Membership:
    """One rank's view of all of them.

    A rank is heard of while its silence is shorter than median + k MAD of its own steps; one that falls
    silent is passed over by everybody until it speaks again. The leader scores, ends slices and, where
    there is one, serves the centre. It is the rank with the highest term; where it falls silent, the
    lowest rank that is heard of takes the lead with a new term, so that the old one, when it wakes, follows.

    Args:
        transport: Carries the standings.
        first_silence_seconds: How long a rank may be silent before its steps are known.
    """

    def __init__(self, transport: Transport, first_silence_seconds: float) -> None:
        self._transport = transport
        self._first_silence_seconds = first_silence_seconds
        self._own = np.zeros(STATUS_WIDTH)
        self._rows: Array = np.zeros((transport.num_ranks, STATUS_WIDTH))
        self._started_samples: Array = np.zeros(transport.num_ranks)
        self._live: tuple[int, ...] = tuple(range(transport.num_ranks))
        if transport.rank == 0:
            self._own[Field.TERM] = 1

    def begin(self, rank_samples: Sequence[int]) -> None:
        """Notes what each rank had seen when the slice began: one that is never heard of has seen it too."""
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
        """Takes note of where everybody stands now, and takes the lead where it falls to this rank."""
        self._rows = self._transport.statuses()
        self._rows[self.rank] = self._own
        silent = self._transport.silent_seconds()
        self._live = tuple(
            rank
            for rank in range(self._transport.num_ranks)
            if rank == self.rank or silent[rank] <= self._longest_silence(rank)
        )
        if self.leads and self._own[Field.TERM] < self._rows[:, Field.TERM].max():
            self._take_lead()

    def refresh(self) -> None:
        """Says that this rank is there, and looks: for those who wait for another rank."""
        self.post()
        self.poll()

    def post(self, **fields: float) -> None:
        """Changes fields of this rank's standing, named as in `Field`, in small letters, and tells all."""
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
        """Ranks that are heard of, this one among them, ascending."""
        return self._live

    def lost_ranks(self) -> tuple[int, ...]:
        """Ranks that are not heard of."""
        return tuple(rank for rank in range(self._transport.num_ranks) if rank not in self._live)

    def leader(self) -> int:
        """The rank that leads, as far as this one knows."""
        highest = int(np.argmax(self._rows[:, Field.TERM]))
        return highest if highest in self._live else self._live[0]

    def all_live(self, field: Field, number: float) -> bool:
        """Whether every rank that is heard of has come to a number."""
        return all(self._rows[rank, field] >= number for rank in self._live)

    def _longest_silence(self, rank: int) -> float:
        row = self._rows[rank]
        highest = int(np.argmax(self._rows[:, Field.TERM]))
        if row[Field.STEP_MEDIAN] <= 0:
            return self._first_silence_seconds
        steps = deadline_seconds(float(row[Field.STEP_MEDIAN]), float(row[Field.STEP_DEVIATION]))
        leader = self._rows[highest]
        is_paused = leader[Field.PAUSE] > leader[Field.RELEASED]
        if is_paused and (rank == highest or row[Field.RESTED] >= leader[Field.PAUSE]):
            # It scores, saves, or writes its part, and says nothing meanwhile.
            steps += float(leader[Field.PAUSE_SECONDS])
        return max(steps, _LEAST_SILENCE_SECONDS)

    def _take_lead(self) -> None:
        before = self._rows[int(np.argmax(self._rows[:, Field.TERM]))]
        for field in (Field.STARTED, Field.EVALUATION_SAMPLES, Field.PAUSE, Field.SAVE, Field.ENDED):
            self._own[field] = before[field]
        if before[Field.EVALUATION] > 0:
            # Copies may have been made for the old leader's mark, of whose clock nobody knows: once more.
            self._own[Field.EVALUATION] = before[Field.EVALUATION] + 1
        # A rest that the old leader asked for is over, and what it was for is asked for again.
        self._own[Field.RELEASED] = before[Field.PAUSE]
        self.post(term=float(before[Field.TERM]) + 1)
