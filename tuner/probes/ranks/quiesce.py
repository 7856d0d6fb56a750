"""A consistent cut: every rank at rest, nothing under way but what each holds, written to one checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.domain.checkpoints import CheckpointFolder, write_atomically
from tuner.probes.ranks.checkpoint_state import ClockState, own_state, write_run
from tuner.probes.ranks.membership import Field, Party
from tuner.probes.ranks.replica import Replica
from tuner.strategies import Strategy
from tuner.transport import Transport

#: How often a resting rank looks whether it may go on, seconds.
_REST_SECONDS = 0.001


class Cut:
    """Rests between steps, off every rank's clock, and writes parts of checkpoints meanwhile.

    The leader asks for a rest. Each rank comes to it at the end of its step and answers others until nothing
    it began is under way. Once all that are heard of rest, what is still to be mixed in has arrived: each
    rank writes its replica, momentum, generators and arrived messages as its part, and the leader joins
    the parts. A rank that falls silent meanwhile is left out. For a scoring, the leader does not wait for
    anybody: the others only keep still while it lasts.

    The cut is consistent over shared memory. Over TCP a push may still travel when all rest: the checkpoint
    then lacks that one message, as if it had been lost.

    Args:
        replica: This rank's.
        party: Says who rests.
        folder: The probe's folder.
        checkpoints: Where checkpoints go.
        tell: Says that this rank is alive, while it rests.
    """

    def __init__(
        self,
        replica: Replica,
        party: Party,
        folder: Path,
        checkpoints: CheckpointFolder,
        tell: Callable[[str], None],
    ) -> None:
        self._replica, self._party = replica, party
        self._parts, self._checkpoints, self._tell = folder / "parts", checkpoints, tell

    def is_asked_for(self) -> bool:
        """Whether the leader, being another rank, asks for a rest."""
        party = self._party
        if party.leads:
            return False
        number = party.of_leader(Field.HOLD)
        return number > party.of_leader(Field.RELEASED)

    def rest(self) -> None:
        """Rests until the leader says that it is over, or falls silent, or ends the slice."""
        party = self._party
        leader = party.leader()
        began = time.monotonic()
        while True:
            number = party.of(leader, Field.HOLD)
            # What has not come by then was lost with a connection, and does not come any more.
            is_overdue = time.monotonic() - began > party.of(leader, Field.HOLD_SECONDS)
            settled = self._replica.strategy.attend() or is_overdue
            rested = {"rested": number} if settled else {}
            party.post(**rested)
            party.look()
            over = party.of(leader, Field.RELEASED) >= number or party.of(leader, Field.ENDED) > 0
            if over or party.leader() != leader:
                return
            # In shared memory, what a rank sent is there before its word that it rests.
            quiet = settled and party.all_live(Field.RESTED, number)
            if quiet and party.of(leader, Field.SAVE) >= number and party.own(Field.SAVED) < number:
                self._write_part(int(number))
                party.post(saved=number)
            self._tell("resting")
            time.sleep(_REST_SECONDS)

    def begin(self, seconds: float) -> float:
        """Asks for a rest, as the leader.

        Args:
            seconds: How long it may take at most; after that others take the leader for lost.

        Returns:
            Its number.
        """
        number = self._party.own(Field.HOLD) + 1
        self._party.post(hold=number, hold_seconds=seconds)
        return number

    def end(self, number: float) -> None:
        """Ends the rest of this number, as the leader."""
        self._party.post(released=max(number, self._party.own(Field.RELEASED)))

    def clear(self) -> None:
        """Removes parts that a slice left which was killed while it saved, as the leader."""
        for part in self._parts.glob("*.pt"):
            part.unlink(missing_ok=True)

    def save(self, clock: ClockState, *, batch_size: int, seconds: float) -> Path | None:
        """Writes a checkpoint, as the leader.

        Args:
            clock: The run's clock.
            batch_size: Samples of one global batch.
            seconds: How long it may take at most.

        Returns:
            Its path; None where another rank has taken the lead meanwhile, whose business it is then.

        Raises:
            StorageError: The folder cannot be written.
        """
        party = self._party
        number = self.begin(seconds)
        try:
            if not self._await(Field.RESTED, number, seconds):
                return None
            party.post(save=number)
            own = own_state(self._replica)
            party.post(saved=number)
            if not self._await(Field.SAVED, number, seconds):
                return None
            owns = [
                own if rank == party.rank else self._part(rank, int(number))
                for rank in range(self._replica.share.num_ranks)
            ]
            total = party.total_samples
            self._replica.samples = total
            return write_run(
                self._checkpoints,
                self._replica,
                clock,
                owns,
                step=total // batch_size,
                rank_samples=[party.samples_of(rank) for rank in range(len(owns))],
            )
        finally:
            self.end(number)
            for part in self._parts.glob(f"rank*-{int(number)}.pt"):
                part.unlink(missing_ok=True)

    def _await(self, field: Field, number: float, seconds: float) -> bool:
        """Attends to others until all that are heard of have come to a number; whether this rank still leads.

        Args:
            field: What they come to.
            number: The rest's number.
            seconds: After so long, what this rank has under way does not count any more.
        """
        party = self._party
        began = time.monotonic()
        while True:
            settled = self._replica.strategy.attend() or time.monotonic() - began > seconds
            if field is Field.RESTED and settled and party.own(Field.RESTED) < number:
                party.post(rested=number)
            party.refresh()
            if not party.leads:
                return False
            if party.all_live(field, number):
                return True
            self._tell("saving")
            time.sleep(_REST_SECONDS)

    def _write_part(self, number: int) -> None:
        self._parts.mkdir(parents=True, exist_ok=True)
        content = own_state(self._replica)
        write_atomically(self._part_path(self._party.rank, number), lambda file: torch.save(content, file))

    def _part(self, rank: int, number: int) -> dict[str, Any] | None:
        path = self._part_path(rank, number)
        if not path.is_file():
            return None
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found

    def _part_path(self, rank: int, number: int) -> Path:
        return self._parts / f"rank{rank}-{number}.pt"


#: The channel in which ranks publish their copies.
COPIES_CHANNEL = 1


class Copies:
    """Makes this rank's copy at a mark, and gathers those of all.

    Args:
        strategy: Says what a rank adds to what is scored.
        transport: Carries the copies.
        party: Says at which mark everybody is.
    """

    def __init__(self, strategy: Strategy, transport: Transport, party: Party) -> None:
        self._strategy, self._transport, self._party = strategy, transport, party
        self._center: Tensor | None = None

    def is_due(self) -> bool:
        """Whether the next mark has been reached and this rank has no copy for it yet."""
        party = self._party
        mark = party.of_leader(Field.MARK)
        is_new = mark > 0 and party.own(Field.COPIED) < mark
        return bool(is_new and party.total_samples >= party.of_leader(Field.MARK_SAMPLES))

    def make(self) -> None:
        """Makes this rank's copy for the next mark."""
        mark = int(self._party.of_leader(Field.MARK))
        vector = self._strategy.own_score_vector()
        if self._strategy.traits.scored == "center":
            self._center = vector
        elif vector is not None:
            self._transport.publish(COPIES_CHANNEL, vector, mark)
        self._party.post(copied=mark)

    def are_complete(self) -> bool:
        """Whether every rank whose copy is wanted, and that is heard of, has made it; for the leader."""
        mark = self._party.own(Field.MARK)
        if self._strategy.traits.scored == "center":
            return self._party.own(Field.COPIED) >= mark
        return self._party.all_live(Field.COPIED, mark)

    def gathered(self, like: Tensor) -> Tensor | None:
        """What is to be scored at the mark: the centre, or the mean of all copies of it, on a device.

        Args:
            like: A vector of the kind and device wanted.

        Returns:
            None while copies are still on their way.
        """
        if self._strategy.traits.scored == "center":
            return self._center
        mark = int(self._party.own(Field.MARK))
        copy = torch.empty_like(like, device="cpu")
        total = torch.zeros_like(copy, dtype=torch.float64 if copy.dtype == torch.float64 else torch.float32)
        count = 0
        for rank in self._party.live_ranks():
            if self._party.of(rank, Field.COPIED) < mark:
                continue
            if self._transport.fetch(rank, COPIES_CHANNEL, copy) != mark:
                return None
            total += copy
            count += 1
        return (total / count).to(like.dtype).to(like.device) if count else None
