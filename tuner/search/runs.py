"""Runs: the trainings that a study's probes started, with all their measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from search_spaces import Configuration, traits_of
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.search.turned_back import TurnedBack, levelled_off, turned_back

#: A run has improved clearly once it has gained this share of the way from its first score to the target.
_CLEAR_GAIN = 0.05
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training that was started, with all its measurements.

    Args:
        probe: Its probe.
        measurement: All slices together, except those that ended by a fault.
        seconds_to_target: Training seconds when it reached the target; None before.
        samples_to_target: Samples when it reached the target; None before.
        rise_samples: Samples at the first score that is clearly better than its first one; None before.
        turned_back: Where it peaked and got worse, or levelled off; None while it may still improve.
    """

    probe: ProbeRecord
    measurement: Measurement
    seconds_to_target: float | None
    samples_to_target: float | None
    rise_samples: int | None = None
    turned_back: TurnedBack | None = None

    @property
    def seen_samples(self) -> int:
        """Samples up to which it was observed, which may lie beyond its newest checkpoint."""
        return max([self.measurement.samples, *(p.samples for p in self.measurement.curve[-1:])])

    @property
    def seen_seconds(self) -> float:
        """Training seconds up to which it was observed, which may lie beyond its newest checkpoint."""
        last = self.measurement.curve[-1:]
        return max([self.measurement.training_seconds, *(p.training_seconds for p in last)])

    @property
    def configuration(self) -> Configuration:
        """Its configuration."""
        return self.probe.configuration

    @property
    def arrived(self) -> bool:
        """Whether it reached the target."""
        return self.seconds_to_target is not None

    @property
    def ended_by_itself(self) -> bool:
        """Whether its script, schedule or recording ended before it reached the target."""
        last = self.probe.slices[-1]
        return last.outcome is Outcome.STOPPED and last.error is None and not self.arrived

    @property
    def is_open(self) -> bool:
        """Whether another slice of the same probe may follow."""
        return self.probe.outcome.can_continue and not self.arrived

    @property
    def has_ended(self) -> bool:
        """Whether it ended before it reached the target and cannot resume."""
        return not self.arrived and not self.can_continue

    @property
    def can_continue(self) -> bool:
        """Whether its training can resume, possibly as a new probe (after a fault or a change of target)."""
        moved = self.probe.outcome is Outcome.REACHED and not self.arrived
        return self.is_open or moved or (self.probe.outcome.is_fault and not self.arrived)


class RunCache:
    """Caches the run of each probe of one search until the probe has another slice or ends.

    Slices are append-only, so their number tells whether there is a new one.

    Args:
        job: The job of the search.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[int, tuple[tuple[int, Outcome], Run | None]] = {}

    def run(self, probe: ProbeRecord) -> Run | None:
        """The run of a probe; None for a timing probe, or if nothing was trained."""
        key = (len(probe.slices), probe.outcome)
        known = self._known.get(probe.probe_id)
        if known is None or known[0] != key:
            known = self._known[probe.probe_id] = (key, _run(probe, self._job))
        run = known[1]
        # The probe's record may have changed in fields that the run does not use, such as the lease.
        return run if run is None or run.probe is probe else replace(run, probe=probe)


def _run(probe: ProbeRecord, job: Job) -> Run | None:
    """The run of a probe; None for a timing probe, or if nothing was trained."""
    # Leave out faulty slices: their scores may be later than the checkpoint from which the run resumes.
    valid = [m for m in probe.slices if not m.outcome.is_fault]
    if probe.purpose is Purpose.TIMING or not valid:
        return None
    measurement = merged(valid)
    if probe.outcome is Outcome.OUT_OF_MEMORY and measurement.samples == 0:
        return None  # it says nothing about the curve, which more nodes may be able to train
    if probe.outcome is Outcome.PAUSED and measurement.samples == 0 and not measurement.trained_curve:
        return None  # its first slice was interrupted before a checkpoint or a score
    crossed = job.goal.crossing(measurement.trained_curve)
    return Run(
        probe=probe,
        measurement=measurement,
        samples_to_target=crossed[0] if crossed else None,
        # Above 0, because its logarithm is used: the clock may still be 0 at the first score.
        seconds_to_target=max(crossed[1], _LEAST_SECONDS) if crossed else None,
        rise_samples=_rise_samples(measurement, job),
        turned_back=None if crossed else _end_of_gain(measurement, job),
    )


def _rise_samples(measurement: Measurement, job: Job) -> int | None:
    """Samples at the first score that is clearly better than the first one; None if there is none."""
    curve, goal = measurement.finite_curve, job.goal
    for point in curve[1:]:
        if goal.sign * (point.value - curve[0].value) > _CLEAR_GAIN * abs(goal.target - curve[0].value):
            return point.samples
    return None


def _end_of_gain(measurement: Measurement, job: Job) -> TurnedBack | None:
    """Where a run turned back or levelled off below the target; always None for recorded runs."""
    if job.recording() is not None:
        return None
    curve, goal = measurement.trained_curve, job.goal
    found = turned_back(curve, goal.target, maximize=goal.maximize)
    return found or levelled_off(curve, goal.target, maximize=goal.maximize)


def paid_slices(probe: ProbeRecord) -> Iterator[tuple[Measurement, float]]:
    """Yields each charged slice of a probe, with the training seconds that it added.

    A measurement that was copied from another probe is not charged again, so it is skipped.
    """
    before = 0.0
    for measurement in probe.slices:
        if measurement.charged_seconds > 0.0:
            start = before if measurement.restart_seconds is None else measurement.restart_seconds
            yield measurement, max(measurement.training_seconds - start, 0.0)
        before = measurement.training_seconds


def is_interrupted(measurement: Measurement, trained: float) -> bool:
    """Whether a slice was interrupted when the search ended, so that its run made no progress.

    Args:
        measurement: Measurement of the slice.
        trained: Training seconds that it added.
    """
    return measurement.outcome is Outcome.PAUSED and trained == 0.0


def run_key(job: Job, configuration: Configuration) -> Configuration:
    """Key of a configuration's run. Configurations with the same learning curve share a run.

    Their curves are the same if they differ only in axes that do not change the training's statistics, such
    as the number of nodes for all-reduce. Recorded runs are never shared.
    """
    if job.probe.recording is not None:
        return configuration
    return traits_of(configuration.strategy).statistics_of(configuration)
