"""Estimates after how many samples or steps the user's script scores its model, from its scores so far."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.job import Job

#: A distance (in samples or steps) between two scores counts as a multiple of the smallest distance if it
#: differs from that multiple by less than this share of the smallest distance.
_EVEN_SHARE = 0.25
#: A score may come earlier or later than scheduled by this share of the distance between scores, since a
#: script can only score after a whole step.
_ROUNDING = 0.05


@dataclass(frozen=True, kw_only=True)
class ScoreSchedule:
    """The samples or steps between two scores of a script, and whether it reports progress in between.

    Args:
        every_samples: Number of samples between two scores; None if unknown, or if the script scores after a
            fixed number of steps.
        every_steps: Number of optimizer steps between two scores; None if unknown, or if the script scores
            after a fixed number of samples.
        has_scores: Whether the script has reported a score so far.
        times_steps: Whether the script reports progress between scores, so steps can be timed without a
            score.
    """

    every_samples: float | None = None
    every_steps: float | None = None
    has_scores: bool = False
    times_steps: bool = True

    def next_after(self, configuration: Configuration, samples: int) -> int | None:
        """Returns the number of samples processed at the next score of a run; None if unknown.

        Args:
            configuration: The configuration of the run.
            samples: Number of samples that the run has processed so far.
        """
        every = self._distance(configuration)
        # Rounding must not make the score at `samples` itself the next one.
        return None if every is None else round(every * (math.floor(samples / every + _ROUNDING) + 1))

    def at_or_after(self, configuration: Configuration, samples: float) -> int:
        """Returns the number of samples processed at the first score that is not before `samples`.

        Args:
            configuration: The configuration of the run.
            samples: Number of samples processed. If the schedule is unknown, the result is this number,
                rounded up.
        """
        every = self._distance(configuration)
        if every is None:
            return math.ceil(samples)
        return round(every * max(math.ceil(samples / every - 1e-9), 1))

    def _distance(self, configuration: Configuration) -> float | None:
        if self.every_samples is None and self.every_steps is not None:
            return self.every_steps * configuration.batch_size
        return self.every_samples


def score_schedule(job: Job, slices: Sequence[Measurement]) -> ScoreSchedule:
    """Estimates the score schedule of a job's script.

    A script scores after a fixed number of samples (such as an epoch) or after a fixed number of steps. Runs
    with different batch sizes show which of the two is fixed. If all runs have the same batch size, the
    number of samples is assumed to be fixed if it is a whole number of epochs; otherwise, the number of steps
    is.

    If the job trains a `Workload` instead of a script, the result is an empty schedule, since Paceline
    decides when such a job is scored.

    Args:
        job: The job. Only a job that runs a script has a schedule.
        slices: Measurements of all slices so far.
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
        # Not all scores are stored: only the smallest distance is certain to be between successive scores.
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
    """Returns the regular interval between the scores of a script; None if the scores are irregular.

    It is the smallest gap, if all gaps are about multiples of it and most gaps are about equal to it.

    Args:
        gaps: Numbers of samples, or of steps, between two scores in a row.
    """
    smallest = min(gaps)
    if smallest <= 0:
        return None
    # The first score of a run may come several distances after its start.
    multiples = np.asarray(gaps) / smallest
    even = np.abs(multiples - np.round(multiples)) < _EVEN_SHARE
    return float(smallest) if even.all() and np.median(multiples) < 1.0 + _EVEN_SHARE else None
