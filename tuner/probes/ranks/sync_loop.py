"""Training loop of a synchronous rank for one slice (part of a probe).

A chunk is a number of steps that ranks make without agreeing on anything in between.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING

import torch
import torch.distributed as dist

from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.measurement import CurvePoint, Outcome, Purpose
from tuner.probes.ranks.checkpoint_state import ClockState, RunStart, save_run
from tuner.probes.ranks.evaluation import NoiseWatch, Scorer
from tuner.probes.ranks.progress import ProgressReporter
from tuner.probes.ranks.replica import MOST_STEPS_STORED, Replica, StepSeconds
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, EvaluationPoints, SlicePlan
from tuner.probes.training_clock import TrainingClock

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup

#: Approximate duration of a chunk, in seconds. Between two chunks, the ranks agree on the number of steps of
#: the next chunk.
_CHUNK_SECONDS = 1.0

#: Training seconds between two checkpoints within a slice.
_CHECKPOINT_SECONDS = 20.0


class SliceRunner:
    """Trains one rank until the end of the slice; all ranks make the same steps at the same time.

    - Steps run in chunks. Within a chunk, ranks communicate only as the strategy requires.
    - Timing probes without a time limit: each rank computes the number of steps of a chunk from numbers that
      all ranks know (samples and steps of the limits).
    - All other slices: rank 0 computes the number of steps, also from its training time, and sends it to the
      other ranks.
    - Between chunks, ranks check that the training is finite, evaluate, and save checkpoints. This does not
      count as training time.

    Args:
        plan: Plan of the slice: job, configuration, limits and folder.
        replica: This rank's model, optimizer and strategy, loaded from the checkpoint.
        scorer: Computes the metric of the replica at evaluation points.
        noise: Measures gradient noise between evaluations.
        evaluation_points: Numbers of samples at which the model is evaluated.
        run_start: Training time of the training that the slice continues.
        reporter: Sends progress and results to the process that started the ranks.
        rank: Index of this rank.
        group: Process group of all ranks; None for one rank.
        horizon_samples: Number of samples at which the learning-rate schedule ends; None if it has no end.
    """

    def __init__(
        self,
        *,
        plan: SlicePlan,
        replica: Replica,
        scorer: Scorer,
        noise: NoiseWatch,
        evaluation_points: EvaluationPoints,
        run_start: RunStart,
        reporter: ProgressReporter,
        rank: int,
        group: ProcessGroup | None,
        horizon_samples: int | None,
    ) -> None:
        self.plan, self.replica, self.scorer, self.noise, self.evaluation_points = (
            plan,
            replica,
            scorer,
            noise,
            evaluation_points,
        )
        self.reporter, self.rank, self.group = reporter, rank, group
        self.horizon_samples = horizon_samples
        self.clock = TrainingClock(run_start.clock.training_seconds, run_start.clock.typical_step_seconds)
        self.steps: list[StepSeconds] = []
        self.exchanged_bytes = 0
        self._start_seconds = self._saved_seconds = run_start.clock.training_seconds
        self._saved_step = replica.step
        self._next_evaluation = evaluation_points.next_after(replica.samples)
        self._last_chunk = 0
        self._num_scores = 0
        self._unsettled: list[tuple[int, CurvePoint]] = []
        self._checkpoints = CheckpointFolder(plan.folder / CHECKPOINTS_FOLDER)

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
        return self.clock.seconds

    def run(self) -> Outcome:
        """Trains until the end of the slice, saves unless the training diverged, and returns the outcome."""
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
                outcome = self._end()
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
        for step in steps:
            self.clock.add(step.step)
        self.steps.extend(steps[: max(0, MOST_STEPS_STORED - len(self.steps))])
        self.exchanged_bytes += sum(exchange.exchanged_bytes for exchange in exchanges)
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
        statistic, is_finite = self.noise.at_evaluation(
            slice_seconds=self.clock.seconds - self._start_seconds,
            step_seconds=self.clock.typical_seconds,
        )
        self.scorer.seconds += self.reporter.seconds_since_entry - began
        if not is_finite:
            return Outcome.DIVERGED
        if statistic is not None and self.rank == 0:
            self.reporter.noise(statistic)
        outcome = self._score()
        self._num_scores += self.replica.samples > self.plan.scored_samples
        # Skip evaluation points until evaluation takes at most the share `probe.max_scoring` of the time.
        steps = math.ceil(self.scorer.equivalent_steps / self.plan.job.probe.max_scoring)
        self._next_evaluation = self.evaluation_points.next_after(
            self.replica.samples + steps * self.replica.batch_size
        )
        return outcome

    def _score_untrained(self) -> Outcome:
        if self.plan.is_timing or self.replica.samples > 0 or not self.plan.score_untrained:
            return Outcome.RUNNING
        self.reporter.progress("scoring")
        return self._score()

    def _score(self) -> Outcome:
        value, is_reached = self.scorer.score(self.clock.typical_seconds)
        if not math.isfinite(value):
            return Outcome.DIVERGED
        point = CurvePoint(
            training_seconds=self.clock.seconds,
            step=self.replica.step,
            samples=self.replica.samples,
            value=value,
        )
        if not self.clock.is_settled:
            self._unsettled.append((self.clock.num_steps, point))
        else:
            self._resend_unsettled()
        self._set_position()
        if self.rank == 0:
            self.reporter.curve(point)
        self.reporter.progress("training")
        return Outcome.REACHED if is_reached else Outcome.RUNNING

    def _resend_unsettled(self) -> None:
        """Sends the first curve points again, with training times that leave out the slow first steps."""
        if self.rank == 0:
            for num_steps, point in self._unsettled:
                seconds = self.clock.seconds_at(num_steps)
                self.reporter.curve(replace(point, training_seconds=seconds))
        self._unsettled = []

    def _agree(self) -> tuple[int, bool]:
        """Agrees with the other ranks on the number of steps of the next chunk, and on saving a checkpoint.

        In a timing probe without a time limit, every rank computes the same result without communication. In
        all other slices, rank 0 decides and sends its decision to the other ranks.

        Returns:
            1. Number of steps of the next chunk; 0 if the slice ends now.
            2. Whether to save a checkpoint before the next chunk.
        """
        save = self.clock.seconds - self._saved_seconds >= _CHECKPOINT_SECONDS and not self.plan.is_timing
        decision = [self._steps_to_end(), int(save)]
        has_clock = not (self.plan.is_timing and self.plan.until.training_seconds is None)
        if has_clock:
            decision[0] = min(decision[0], self._steps_by_clock())
            if self.group is not None:
                decided = torch.tensor(decision, dtype=torch.int64)
                dist.broadcast(decided, src=0, group=self.group)
                decision = [int(number) for number in decided]
        return decision[0], bool(decision[1])

    def _steps_to_end(self) -> int:
        """Returns the number of steps to the next evaluation or the end of the slice, without time limits."""
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
        """Returns the number of steps in about a second, or to the slice's time limit if that is nearer.

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

    def _end(self) -> Outcome:
        if self.plan.purpose is Purpose.TIMING:
            return Outcome.STOPPED
        if self.horizon_samples is not None and self.replica.samples >= self.horizon_samples:
            return Outcome.STOPPED
        return Outcome.PAUSED

    def _save(self) -> None:
        if self.plan.is_timing:
            return
        self.reporter.progress("saving")
        state = ClockState(
            training_seconds=self.clock.seconds, typical_step_seconds=self.clock.typical_seconds
        )
        path = save_run(self._checkpoints, self.replica, state, rank=self.rank, group=self.group)
        if path is not None:
            self.reporter.checkpoint(str(path))
        if self.group is not None:
            # The other ranks wait until rank 0 has written the checkpoint.
            dist.broadcast(torch.zeros(1), src=0, group=self.group)
        self._saved_seconds, self._saved_step = self.clock.seconds, self.replica.step

    def _set_position(self) -> None:
        self.reporter.set_position(
            step=self.replica.step,
            samples=self.replica.samples,
            training_seconds=self.clock.seconds,
            scoring_seconds=self.scorer.seconds,
        )
