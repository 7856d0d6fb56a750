"""When a job's runs are scored, and whether their steps are timed, as far as its slices show."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job

#: Gaps of so many times the usual one are breaks, not the script's interval.
_EVEN_SHARE = 0.25
#: Scores come that share of their distance earlier or later, by steps that do not divide it.
_ROUNDING = 0.05


@dataclass(frozen=True, kw_only=True)
class ScoreSchedule:
    """When the user's script scores.

    Args:
        every_samples: Samples between two scores; None where it is not that.
        every_steps: Optimizer steps between two scores; None where it is not that.
        has_scores: Whether any score was read.
        times_steps: Whether steps are timed without a score: progress is reported between scores.
    """

    every_samples: float | None = None
    every_steps: float | None = None
    has_scores: bool = False
    times_steps: bool = True

    def next_after(self, configuration: Configuration, samples: int) -> int | None:
        """Samples at which a run's next score is due; None if unknown.

        Args:
            configuration: What it runs with.
            samples: Samples that it has seen.
        """
        every = self._distance(configuration)
        # Rounding of a distance must not make the score that has come the next one.
        return None if every is None else round(every * (math.floor(samples / every + _ROUNDING) + 1))

    def at_or_after(self, configuration: Configuration, samples: float) -> int:
        """The score that is due at some samples, or the next one after; `samples` if unknown."""
        every = self._distance(configuration)
        if every is None:
            return math.ceil(samples)
        return round(every * max(math.ceil(samples / every - 1e-9), 1))

    def _distance(self, configuration: Configuration) -> float | None:
        if self.every_samples is None and self.every_steps is not None:
            return self.every_steps * configuration.batch_size
        return self.every_samples


def score_schedule(job: Job, slices: Sequence[Measurement]) -> ScoreSchedule:
    """The schedule of a job's script, from every slice measured so far.

    Scores come at even distances in samples, as once an epoch, or in steps. Which of both it is follows from
    runs with different batches; before, from whether the distance is a whole number of epochs.

    Nothing is known of a job that trains a Workload, whose scores come where Paceline asks for them.

    Args:
        job: The job.
        slices: What was measured, with the curves of runs.
    """
    if not job.runs_command:
        return ScoreSchedule()
    samples, steps, lines = [], [], 0
    for measurement in slices:
        if measurement.purpose is Purpose.TIMING:
            continue
        curve = [point for point in measurement.curve if point.samples > 0]
        gaps = [(b.samples - a.samples, b.step - a.step) for a, b in itertools.pairwise(curve)]
        if not gaps and curve:
            gaps = [(curve[0].samples, curve[0].step)]
        # Close scores are thinned out: the smallest distances are the script's.
        if gaps:
            smallest = min(gaps)
            samples.append(float(smallest[0]))
            steps.append(float(smallest[1]))
        lines += len(curve)
    times_steps = all(
        m.reports_steps
        for m in slices
        if m.outcome is not Outcome.RUNNING and m.purpose is not Purpose.TIMING and m.curve
    )
    if not samples:
        return ScoreSchedule(times_steps=times_steps)
    by_samples, by_steps = _every(samples), _every(steps)
    size = job.command.epoch_samples
    if by_samples is not None and by_steps is not None:
        epochs = 0.0 if size is None else by_samples / size
        is_epoch = epochs > 0.5 and abs(epochs - round(epochs)) < _EVEN_SHARE * 0.2
        by_samples, by_steps = (by_samples, None) if is_epoch else (None, by_steps)
    return ScoreSchedule(
        every_samples=by_samples, every_steps=by_steps, has_scores=lines > 0, times_steps=times_steps
    )


def _every(gaps: Sequence[float]) -> float | None:
    """The distance that some gaps have in common; None if they differ."""
    smallest = min(gaps)
    if smallest <= 0:
        return None
    # Runs whose first score only was seen may lie several distances apart.
    multiples = np.asarray(gaps) / smallest
    even = np.abs(multiples - np.round(multiples)) < _EVEN_SHARE
    return float(smallest) if even.all() and np.median(multiples) < 1.0 + _EVEN_SHARE else None
