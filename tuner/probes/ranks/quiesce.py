"""Pauses all asynchronous ranks to write a checkpoint, after the messages in flight have arrived.

It also gathers the snapshots of all ranks for an evaluation.
"""

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

#: Interval at which a paused rank checks whether it may continue, seconds.
_PAUSE_POLL_SECONDS = 0.001


class ConsistentSnapshot:
    """Pauses all asynchronous ranks between steps, to save a checkpoint or to evaluate.

    Saving a checkpoint:

    1. The leader requests a pause.
    2. Each rank stops after its current step, and replies to the requests of other ranks until all its own
       requests were replied to.
    3. When all live ranks have stopped, each writes its part of the checkpoint: parameters,
       optimizer, strategy, random generators and received messages.
    4. The leader joins the parts to one checkpoint and ends the pause.

    The checkpoint does not contain a rank that does not respond during the pause. A vector that was sent to
    another rank may not have arrived when the parts are written. It is then missing in the checkpoint, as if
    it was lost.

    For an evaluation, the other ranks pause too, but the leader does not wait until they have stopped.

    Pauses do not count as training time.

    Args:
        replica: Replica of this rank.
        membership: Statuses of all ranks, by which pauses are requested and confirmed.
        folder: Folder of the probe, in which the parts are written.
        checkpoints: Folder to which checkpoints are written.
        report: Function that reports to the launcher that this rank is alive, called while it is paused.
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
        #: Ranks whose state is not in the last checkpoint, because they did not respond; set on the leader.
        self.absent_ranks: tuple[int, ...] = ()

    def is_asked_for(self) -> bool:
        """Whether another rank leads and requests a pause."""
        membership = self._membership
        if membership.leads:
            return False
        number = membership.of_leader(Field.PAUSE)
        return number > membership.of_leader(Field.RELEASED)

    def pause(self) -> None:
        """Pauses until the leader ends the pause or the slice, or until another rank becomes the leader."""
        membership = self._membership
        leader = membership.leader()
        began = time.monotonic()
        while True:
            number = membership.of(leader, Field.PAUSE)
            # A reply that has not arrived within the longest duration of the pause was lost with its
            # connection.
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
        """Requests a pause; only the leader calls it.

        Args:
            seconds: Longest duration of the pause. After this time, the other ranks treat the leader as lost.

        Returns:
            Number of the pause.
        """
        number = self._membership.own(Field.PAUSE) + 1
        self._membership.post(pause=number, pause_seconds=seconds)
        return number

    def end(self, number: float) -> None:
        """Ends the pause that has this number, so all ranks continue; only the leader calls it."""
        self._membership.post(released=max(number, self._membership.own(Field.RELEASED)))

    def clear(self) -> None:
        """Removes parts of a checkpoint that a killed slice has left; only the leader calls it."""
        for part in self._parts.glob("*.pt"):
            part.unlink(missing_ok=True)

    def save(self, clock: ClockState, *, batch_size: int, seconds: float, ended: int = 0) -> Path | None:
        """Saves a checkpoint; only the leader calls it.

        Args:
            clock: Training time to store.
            batch_size: Samples of one global batch.
            seconds: Longest duration of the pause.
            ended: Value of `Field.ENDED` to post before the pause ends, so that no rank trains beyond the
                checkpoint; 0 if the slice continues.

        Returns:
            Path of the checkpoint; None if another rank has become leader meanwhile.

        Raises:
            StorageError: The checkpoint cannot be written.
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
            self.absent_ranks = tuple(rank for rank, state in enumerate(owns) if state is None)
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
        """Replies to requests of other ranks until a field of every live rank's status is at least `number`.

        Args:
            field: The field of the statuses to compare with `number`.
            number: Number of the pause.
            seconds: Time after which this rank's own requests in flight count as lost.

        Returns:
            Whether this rank is still the leader.
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


#: The transport's channel in which ranks publish their snapshots.
SNAPSHOTS_CHANNEL = 1


class Snapshots:
    """Copies this rank's parameters for an evaluation (a snapshot), and gathers the snapshots of all ranks.

    Args:
        strategy: Strategy that returns the parameters to evaluate.
        transport: Transfers the snapshots.
        membership: Statuses, which show for which evaluation each rank has taken its snapshot.
    """

    def __init__(self, strategy: Strategy, transport: Transport, membership: Membership) -> None:
        self._strategy, self._transport, self._membership = strategy, transport, membership
        self._center: Tensor | None = None

    def is_due(self) -> bool:
        """Whether the next evaluation point is reached and this rank has taken no snapshot for it yet."""
        membership = self._membership
        evaluation = membership.of_leader(Field.EVALUATION)
        is_new = evaluation > 0 and membership.own(Field.COPIED) < evaluation
        return bool(is_new and membership.total_samples >= membership.of_leader(Field.EVALUATION_SAMPLES))

    def make(self) -> None:
        """Copies this rank's parameters for the evaluation at the next evaluation point."""
        evaluation = int(self._membership.of_leader(Field.EVALUATION))
        vector = self._strategy.own_score_vector()
        if self._strategy.traits.scored == "center":
            self._center = vector
        elif vector is not None:
            self._transport.publish(SNAPSHOTS_CHANNEL, vector, evaluation)
        self._membership.post(copied=evaluation)

    def are_complete(self) -> bool:
        """Whether all snapshots for the next evaluation point were taken; only the leader calls it."""
        evaluation = self._membership.own(Field.EVALUATION)
        if self._strategy.traits.scored == "center":
            return self._membership.own(Field.COPIED) >= evaluation
        return self._membership.all_live(Field.COPIED, evaluation)

    def gathered(self, like: Tensor) -> Tensor | None:
        """Returns the parameters to evaluate: the server's parameters, or the mean of all snapshots.

        Args:
            like: A vector with the dtype and device that the result must have.

        Returns:
            The parameters as one vector; None if a snapshot has not arrived yet.
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
