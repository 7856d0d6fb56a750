"""Base class of the training loops: training time, learning curve and outcome of one rank in one slice."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, replace

from tuner.domain.checkpoints import CheckpointFolder
from tuner.domain.measurement import CurvePoint, Outcome, Purpose
from tuner.probes.ranks.checkpoint_state import ClockState, RunStart
from tuner.probes.ranks.evaluation import NoiseWatch, Scorer
from tuner.probes.ranks.progress import ProgressReporter
from tuner.probes.ranks.replica import MOST_STEPS_STORED, Replica, StepSeconds
from tuner.probes.slice_plan import CHECKPOINTS_FOLDER, EvaluationPoints, SlicePlan
from tuner.probes.training_clock import TrainingClock


@dataclass(frozen=True, kw_only=True)
class SliceParts:
    """What a training loop needs to train one rank for one slice (part of a probe).

    Args:
        plan: Plan of the slice: job, configuration, limits and folder.
        replica: This rank's model, optimizer and strategy, loaded from the checkpoint.
        scorer: Computes the metric at evaluation points.
        noise: Measures gradient noise between evaluations.
        evaluation_points: Numbers of samples at which the model is evaluated.
        run_start: Training time and samples of each rank at the checkpoint that the slice continues.
        reporter: Sends progress and results to the process that started the ranks.
        horizon_samples: Number of samples at which the learning-rate schedule ends; None if it has no end.
    """

    plan: SlicePlan
    replica: Replica
    scorer: Scorer
    noise: NoiseWatch
    evaluation_points: EvaluationPoints
    run_start: RunStart
    reporter: ProgressReporter
    horizon_samples: int | None


class SliceLoop(ABC):
    """Training loop of one rank for one slice.

    Args:
        parts: Plan, replica, scorer and the other objects that the loop uses.
        sends_results: Whether this rank sends curve points and gradient noise when it has them.

    Attributes:
        clock: Training time of this rank.
        steps: Time of each step, for at most `MOST_STEPS_STORED` steps.
        exchanged_bytes: Bytes that this rank has exchanged with other ranks in this slice.
    """

    #: Training seconds between two checkpoints within a slice.
    checkpoint_seconds = 20.0

    def __init__(self, parts: SliceParts, *, sends_results: bool) -> None:
        self.plan, self.replica, self.scorer, self.noise = (
            parts.plan,
            parts.replica,
            parts.scorer,
            parts.noise,
        )
        self.evaluation_points, self.reporter = parts.evaluation_points, parts.reporter
        self.horizon_samples = parts.horizon_samples
        start = parts.run_start.clock
        self.clock = TrainingClock(start.training_seconds, start.typical_step_seconds)
        self.steps: list[StepSeconds] = []
        self.exchanged_bytes = 0
        self._start_seconds = self._saved_seconds = start.training_seconds
        #: Seconds to add to this rank's clock to get the training time of the slice, which continues that of
        #: the previous leader.
        self._ahead_seconds = 0.0
        self._checkpoints = CheckpointFolder(parts.plan.folder / CHECKPOINTS_FOLDER)
        self._sends_results = sends_results
        self._unsettled: list[tuple[int, CurvePoint]] = []

    @abstractmethod
    def run(self) -> Outcome:
        """Trains until the end of the slice, and returns the outcome.

        At the end, a checkpoint is saved, unless the training diverged.
        """

    @property
    @abstractmethod
    def samples(self) -> int:
        """Number of samples that all ranks together have processed since the start of the training."""

    @property
    def step(self) -> int:
        """Number of global batches that all ranks together have processed."""
        return self.samples // self.replica.batch_size

    @property
    def seconds(self) -> float:
        """Training time so far, in seconds."""
        return self.clock.seconds + self._ahead_seconds

    @property
    def _must_save(self) -> bool:
        return self.seconds - self._saved_seconds >= self.checkpoint_seconds and not self.plan.is_timing

    @property
    def _clock_state(self) -> ClockState:
        return ClockState(training_seconds=self.seconds, typical_step_seconds=self.clock.typical_seconds)

    def _add_step(self, step: StepSeconds, exchanged_bytes: int) -> None:
        self.clock.add(step.step)
        if len(self.steps) < MOST_STEPS_STORED:
            self.steps.append(step)
        self.exchanged_bytes += exchanged_bytes

    def _send_noise(self) -> bool:
        """Sends the gradient noise since the last evaluation; returns whether all losses are finite."""
        statistic, is_finite = self.noise.at_evaluation(
            slice_seconds=self.clock.seconds - self._start_seconds, step_seconds=self.clock.typical_seconds
        )
        if self._sends_results and is_finite and statistic is not None:
            self.reporter.noise(statistic)
        return is_finite

    def _send_point(self, point: CurvePoint) -> None:
        """Sends a point of the learning curve.

        A point at one of the slow first steps is sent again later, when its training time was corrected.
        """
        if not self.clock.is_settled:
            self._unsettled.append((self.clock.num_steps, point))
        else:
            self._resend_unsettled()
        self._set_position()
        if self._sends_results:
            self.reporter.curve(point)

    def _resend_unsettled(self) -> None:
        """Sends the first curve points again, with training times that leave out the slow first steps."""
        if self._sends_results:
            for num_steps, point in self._unsettled:
                seconds = self.clock.seconds_at(num_steps) + self._ahead_seconds
                self.reporter.curve(replace(point, training_seconds=seconds))
        self._unsettled = []

    def _next_evaluation_point(self) -> int:
        """Returns the number of samples at which the model is evaluated next.

        Skips evaluation points until evaluation takes at most the share `probe.max_scoring` of the time.
        """
        steps = math.ceil(self.scorer.equivalent_steps / self.plan.job.probe.max_scoring)
        return self.evaluation_points.next_after(self.samples + steps * self.replica.batch_size)

    def _outcome_at_end(self) -> Outcome:
        """Returns the outcome of a slice that ends at one of its limits."""
        if self.plan.purpose is Purpose.TIMING:
            return Outcome.STOPPED
        if self.horizon_samples is not None and self.samples >= self.horizon_samples:
            return Outcome.STOPPED
        return Outcome.PAUSED

    def _set_position(self) -> None:
        self.reporter.set_position(
            step=self.step,
            samples=self.samples,
            training_seconds=self.seconds,
            scoring_seconds=self.scorer.seconds,
        )
