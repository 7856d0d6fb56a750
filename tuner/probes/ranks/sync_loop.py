"""Training loop of a synchronous rank for one slice (part of a probe).

A chunk is a number of steps that ranks make without agreeing on anything in between.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from tuner.domain.measurement import CurvePoint, Outcome
from tuner.probes.ranks.checkpoint_state import save_run
from tuner.probes.ranks.slice_loop import SliceLoop, SliceParts

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

#: Approximate duration of a chunk (several steps), in seconds. Between two chunks, the ranks agree on the
#: number of steps of the next chunk.
_CHUNK_SECONDS = 1.0


class SynchronousLoop(SliceLoop):
    """Trains one rank until the end of the slice; all ranks make the same steps at the same time.

    - Steps run in chunks. Within a chunk, ranks communicate only as the strategy requires.
    - Timing probes without a time limit: each rank computes the number of steps of a chunk from numbers that
      all ranks know (samples and steps of the limits).
    - All other slices: rank 0 computes the number of steps, also from its training time, and sends it to the
      other ranks.
    - Between chunks, ranks check that the training is finite, evaluate, and save checkpoints. This does not
      count as training time.

    Args:
        parts: Plan, replica, scorer and the other objects that the loop uses.
        rank: Index of this rank.
        group: Process group of all ranks; None for one rank.
    """

    def __init__(self, parts: SliceParts, *, rank: int, group: ProcessGroup | None) -> None:
        super().__init__(parts, sends_results=rank == 0)
        self.rank, self.group = rank, group
        self._saved_step = self.replica.step
        self._next_evaluation = self.evaluation_points.next_after(self.replica.samples)
        self._last_chunk = 0
        self._num_scores = 0

    @property
    def samples(self) -> int:
        return self.replica.samples

    @property
    def step(self) -> int:
        return self.replica.step

    def run(self) -> Outcome:
        outcome = self._score_untrained()
        self.reporter.started(
            setup_seconds=self.reporter.seconds_since_entry - self.scorer.seconds,
            samples=self.replica.samples,
        )
        while outcome is Outcome.RUNNING:
            num_steps, save = self._agree()
            if save:
                self._save()
            if num_steps == 0:
                outcome = self._outcome_at_end()
                break
            outcome = self._chunk(num_steps)
        self._resend_unsettled()
        if outcome is not Outcome.DIVERGED and self.replica.step > self._saved_step:
            self._save()
        return outcome

    def _chunk(self, num_steps: int) -> Outcome:
        replica = self.replica
        replica.run_chunk(num_steps, lambda: self.reporter.beat(step=replica.step, samples=replica.samples))
        steps, exchanges, is_finite = replica.read_chunk()
        for step, exchange in zip(steps, exchanges, strict=True):
            self._add_step(step, exchange.exchanged_bytes)
        self._last_chunk = num_steps
        self._set_position()
        if not is_finite:
            return Outcome.DIVERGED
        if self.plan.is_timing:
            return Outcome.RUNNING
        self.noise.add(exchanges)
        if replica.samples < self._next_evaluation:
            return Outcome.RUNNING
        return self._evaluate_at()

    def _evaluate_at(self) -> Outcome:
        self.reporter.progress("scoring")
        began = self.reporter.seconds_since_entry
        is_finite = self._send_noise()
        self.scorer.seconds += self.reporter.seconds_since_entry - began
        if not is_finite:
            return Outcome.DIVERGED
        outcome = self._score()
        self._num_scores += self.replica.samples > self.plan.scored_samples
        self._next_evaluation = self._next_evaluation_point()
        return outcome

    def _score_untrained(self) -> Outcome:
        if not self.plan.begins_with_score(self.replica.samples):
            return Outcome.RUNNING
        self.reporter.progress("scoring")
        return self._score()

    def _score(self) -> Outcome:
        value, is_reached = self.scorer.score(self.clock.typical_seconds)
        if not math.isfinite(value):
            return Outcome.DIVERGED
        point = CurvePoint(training_seconds=self.seconds, step=self.step, samples=self.samples, value=value)
        self._send_point(point)
        self.reporter.progress("training")
        return Outcome.REACHED if is_reached else Outcome.RUNNING

    def _agree(self) -> tuple[int, bool]:
        """Agrees with the other ranks on the number of steps of the next chunk, and on saving a checkpoint.

        In a timing probe without a time limit, every rank computes the same result without communication. In
        all other slices, rank 0 decides and sends its decision to the other ranks.

        Returns:
            1. Number of steps of the next chunk; 0 if the slice ends now.
            2. Whether to save a checkpoint before the next chunk.
        """
        decision = [self._steps_to_end(), int(self._must_save)]
        has_clock = not (self.plan.is_timing and self.plan.until.training_seconds is None)
        if has_clock:
            decision[0] = min(decision[0], self._steps_by_clock())
            if self.group is not None:
                decided = torch.tensor(decision, dtype=torch.int64)
                dist.broadcast(decided, src=0, group=self.group)
                decision = [int(number) for number in decided]
        return decision[0], bool(decision[1])

    def _steps_to_end(self) -> int:
        """Returns the number of steps to the next evaluation or to the end of the slice, whichever is first.

        Time limits of the slice are ignored.
        """
        until, replica = self.plan.until, self.replica
        if self.plan.has_all_scores(self._num_scores):
            return 0
        limits = []
        if not self.plan.is_timing:
            limits.append(self._next_evaluation)
            if self.horizon_samples is not None:
                limits.append(self.horizon_samples)
        if until.samples is not None:
            limits.append(until.samples)
        steps = [max(0, -(-(limit - replica.samples) // replica.batch_size)) for limit in limits]
        if until.steps is not None:
            steps.append(max(0, until.steps - self.clock.num_steps))
        if not steps:
            return 2**31
        return min(steps)

    def _steps_by_clock(self) -> int:
        """Returns the number of steps that fill about a second, or the time to the slice's limit if shorter.

        The number is at most twice the number of steps of the last chunk.
        """
        until = self.plan.until
        seconds = _CHUNK_SECONDS
        if until.training_seconds is not None:
            left = until.training_seconds - self.clock.seconds
            if left <= 0:
                return 0
            seconds = min(seconds, left)
        typical = self.clock.typical_seconds
        most = max(1, 2 * self._last_chunk)
        if not typical:
            return most
        return max(1, min(most, round(seconds / typical)))

    def _save(self) -> None:
        if self.plan.is_timing:
            return
        self.reporter.progress("saving")
        path = save_run(self._checkpoints, self.replica, self._clock_state, rank=self.rank, group=self.group)
        if path is not None:
            self.reporter.checkpoint(str(path))
        if self.group is not None:
            # The other ranks wait until rank 0 has written the checkpoint.
            dist.broadcast(torch.zeros(1), src=0, group=self.group)
        self._saved_seconds, self._saved_step = self.clock.seconds, self.replica.step
