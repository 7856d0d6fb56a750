"""Consistent snapshot of asynchronous ranks: pause all, drain messages, write one checkpoint."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tuner.domain.checkpoints import CheckpointFolder, write_atomically
from tuner.probes.ranks.checkpoint_state import ClockState, own_state, write_run
from tuner.probes.ranks.membership import Field, Membership
from tuner.probes.ranks.replica import Replica
from tuner.strategies import Strategy
from tuner.transport import Transport

#: How often a paused rank checks whether it may continue, seconds.
_PAUSE_POLL_SECONDS = 0.001


class ConsistentSnapshot:
    """Pause barrier between steps, off every rank's clock, in which parts of checkpoints are written.

    The leader requests a pause. Each rank reaches it at the end of its step and answers others until nothing
    it started is in flight. Once all live ranks have paused, all that is to be mixed in has arrived: each
    rank writes its replica, momentum, generators and arrived messages as its part, and the leader joins
    the parts. A rank that stays silent meanwhile is left out. For an evaluation, the leader does not wait for
    the other ranks: they only pause while it lasts.

    A push may still travel when all have paused: the checkpoint then lacks that one message, as if it had
    been lost.

    Args:
        replica: This rank's.
        membership: Knows which ranks have paused.
        folder: The probe's folder.
        checkpoints: Where checkpoints go.
        report: Reports that this rank is alive, while it is paused.
    """

    def __init__(
        self,
        replica: Replica,
        membership: Membership,
        folder: Path,
        checkpoints: CheckpointFolder,
        report: Callable[[str], None],
    ) -> None:
        self._replica, self._membership = replica, membership
        self._parts, self._checkpoints, self._report = folder / "parts", checkpoints, report

    def is_asked_for(self) -> bool:
        """Whether another rank leads and requests a pause."""
        membership = self._membership
        if membership.leads:
            return False
        number = membership.of_leader(Field.PAUSE)
        return number > membership.of_leader(Field.RELEASED)

    def pause(self) -> None:
        """Pauses until the leader ends the pause, falls silent, or ends the slice."""
        membership = self._membership
        leader = membership.leader()
        began = time.monotonic()
        while True:
            number = membership.of(leader, Field.PAUSE)
            # What has not come by then was lost with a connection, and does not come any more.
            is_overdue = time.monotonic() - began > membership.of(leader, Field.PAUSE_SECONDS)
            settled = self._replica.strategy.attend() or is_overdue
            paused = {"paused": number} if settled else {}
            membership.post(**paused)
            membership.poll()
            over = membership.of(leader, Field.RELEASED) >= number or membership.of(leader, Field.ENDED) > 0
            if over or membership.leader() != leader:
                return
            quiet = settled and membership.all_live(Field.PAUSED, number)
            if quiet and membership.of(leader, Field.SAVE) >= number and membership.own(Field.SAVED) < number:
                self._write_part(int(number))
                membership.post(saved=number)
            self._report("paused")
            time.sleep(_PAUSE_POLL_SECONDS)

    def begin(self, seconds: float) -> float:
        """Requests a pause, as the leader.

        Args:
            seconds: How long it may take at most; after that others take the leader for lost.

        Returns:
            Its number.
        """
        number = self._membership.own(Field.PAUSE) + 1
        self._membership.post(pause=number, pause_seconds=seconds)
        return number

    def end(self, number: float) -> None:
        """Ends the pause of this number, as the leader."""
        self._membership.post(released=max(number, self._membership.own(Field.RELEASED)))

    def clear(self) -> None:
        """Removes parts that a slice left which was killed while it saved, as the leader."""
        for part in self._parts.glob("*.pt"):
            part.unlink(missing_ok=True)

    def save(self, clock: ClockState, *, batch_size: int, seconds: float, ended: int = 0) -> Path | None:
        """Writes a checkpoint, as the leader.

        Args:
            clock: The run's clock.
            batch_size: Samples of one global batch.
            seconds: How long it may take at most.
            ended: What `Field.ENDED` becomes before the pause is over, so that no rank trains beyond the
                checkpoint; 0 if the slice continues.

        Returns:
            Its path; None if another rank has taken the lead meanwhile, which then writes it.

        Raises:
            StorageError: The folder cannot be written.
        """
        membership = self._membership
        number = self.begin(seconds)
        try:
            if not self._await(Field.PAUSED, number, seconds):
                return None
            membership.post(save=number)
            own = own_state(self._replica)
            membership.post(saved=number)
            if not self._await(Field.SAVED, number, seconds):
                return None
            owns = [
                own if rank == membership.rank else self._part(rank, int(number))
                for rank in range(self._replica.share.num_ranks)
            ]
            total = membership.total_samples
            self._replica.samples = total
            path = write_run(
                self._checkpoints,
                self._replica,
                clock,
                owns,
                step=total // batch_size,
                rank_samples=[membership.samples_of(rank) for rank in range(len(owns))],
            )
            if ended:
                membership.post(ended=ended)
            return path
        finally:
            self.end(number)
            for part in self._parts.glob(f"rank*-{int(number)}.pt"):
                part.unlink(missing_ok=True)

    def _await(self, field: Field, number: float, seconds: float) -> bool:
        """Serves others until all live ranks have reached a number; returns whether this rank still leads.

        Args:
            field: The field to compare.
            number: The pause's number.
            seconds: After so long, what this rank has in flight no longer counts.
        """
        membership = self._membership
        began = time.monotonic()
        while True:
            settled = self._replica.strategy.attend() or time.monotonic() - began > seconds
            if field is Field.PAUSED and settled and membership.own(Field.PAUSED) < number:
                membership.post(paused=number)
            membership.refresh()
            if not membership.leads:
                return False
            if membership.all_live(field, number) and not membership.may_return():
                return True
            self._report("saving")
            time.sleep(_PAUSE_POLL_SECONDS)

    def _write_part(self, number: int) -> None:
        self._parts.mkdir(parents=True, exist_ok=True)
        content = own_state(self._replica)
        write_atomically(
            self._part_path(self._membership.rank, number), lambda file: torch.save(content, file)
        )

    def _part(self, rank: int, number: int) -> dict[str, Any] | None:
        path = self._part_path(rank, number)
        if not path.is_file():
            return None
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
        return found

    def _part_path(self, rank: int, number: int) -> Path:
        return self._parts / f"rank{rank}-{number}.pt"


#: The channel in which ranks publish their snapshots.
SNAPSHOTS_CHANNEL = 1


class Snapshots:
    """Takes this rank's snapshot at an evaluation point, and gathers those of all.

    Args:
        strategy: Says what a rank adds to what is scored.
        transport: Transfers the snapshots.
        membership: Knows which evaluation point each rank has reached.
    """

    def __init__(self, strategy: Strategy, transport: Transport, membership: Membership) -> None:
        self._strategy, self._transport, self._membership = strategy, transport, membership
        self._center: Tensor | None = None

    def is_due(self) -> bool:
        """Whether the next evaluation point has been reached and this rank has no snapshot for it yet."""
        membership = self._membership
        evaluation = membership.of_leader(Field.EVALUATION)
        is_new = evaluation > 0 and membership.own(Field.COPIED) < evaluation
        return bool(is_new and membership.total_samples >= membership.of_leader(Field.EVALUATION_SAMPLES))

    def make(self) -> None:
        """Takes this rank's snapshot for the next evaluation point."""
        evaluation = int(self._membership.of_leader(Field.EVALUATION))
        vector = self._strategy.own_score_vector()
        if self._strategy.traits.scored == "center":
            self._center = vector
        elif vector is not None:
            self._transport.publish(SNAPSHOTS_CHANNEL, vector, evaluation)
        self._membership.post(copied=evaluation)

    def are_complete(self) -> bool:
        """Whether every live rank whose snapshot is needed has taken it; for the leader."""
        evaluation = self._membership.own(Field.EVALUATION)
        if self._strategy.traits.scored == "center":
            return self._membership.own(Field.COPIED) >= evaluation
        return self._membership.all_live(Field.COPIED, evaluation)

    def gathered(self, like: Tensor) -> Tensor | None:
        """What is scored at the evaluation point: the center, or the mean of all snapshots, on a device.

        Args:
            like: A vector of the kind and device wanted.

        Returns:
            None while snapshots are still in transit.
        """
        if self._strategy.traits.scored == "center":
            return self._center
        evaluation = int(self._membership.own(Field.EVALUATION))
        copy = torch.empty_like(like, device="cpu")
        total = torch.zeros_like(copy, dtype=torch.float64 if copy.dtype == torch.float64 else torch.float32)
        count = 0
        for rank in self._membership.live_ranks():
            if self._membership.of(rank, Field.COPIED) < evaluation:
                continue
            if self._transport.fetch(rank, SNAPSHOTS_CHANNEL, copy) != evaluation:
                return None
            total += copy
            count += 1
        return (total / count).to(like.dtype).to(like.device) if count else None
