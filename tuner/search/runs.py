"""Runs: the trainings that a study's probes started, with all their measurements."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from search_spaces import Configuration, traits_of
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.ledger import ProbeRecord
from tuner.search.turned_back import TurnedBack, levelled_off, turned_back

#: A run has left its start once it has gained this share of what its first score lacks to the target.
_CLEAR_GAIN = 0.05
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training that was started, with all its measurements.

    Args:
        probe: Its probe.
        measurement: All slices together, but for one that ended by a fault.
        seconds_to_target: Training clock at the crossing; None until it reaches the target.
        samples_to_target: Samples at the crossing; None until it reaches the target.
        rise_samples: Samples at the first score that is clearly better than its first one; None before.
        turned_back: Where it passed its best value and got worse since, or levelled off; None while it may
            still gain.
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
        """What it runs with."""
        return self.probe.configuration

    @property
    def arrived(self) -> bool:
        """Whether it reached the target."""
        return self.seconds_to_target is not None

    @property
    def ended_by_itself(self) -> bool:
        """Whether its script, schedule or recording came to its own end before the target."""
        last = self.probe.slices[-1]
        return last.outcome is Outcome.STOPPED and last.error is None and not self.arrived

    @property
    def is_open(self) -> bool:
        """Whether another slice of the same probe may follow."""
        return self.probe.outcome.can_continue and not self.arrived

    @property
    def has_ended(self) -> bool:
        """Whether it ended without reaching the target, or broke down."""
        return not self.arrived and not self.can_continue

    @property
    def can_continue(self) -> bool:
        """Whether its training may resume, also as another probe: after a fault, or if the target moved."""
        moved = self.probe.outcome is Outcome.REACHED and not self.arrived
        return self.is_open or moved or (self.probe.outcome.is_fault and not self.arrived)


class RunCache:
    """Keeps the run of each probe of one search until the probe has another slice or ends.

    Slices are append-only, so that their number says whether any is new.

    Args:
        job: The job of the search.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[int, tuple[tuple[int, Outcome], Run | None]] = {}

    def run(self, probe: ProbeRecord) -> Run | None:
        """The training of a probe; None for a timing, or where nothing was trained."""
        key = (len(probe.slices), probe.outcome)
        known = self._known.get(probe.probe_id)
        if known is None or known[0] != key:
            known = self._known[probe.probe_id] = (key, _run(probe, self._job))
        run = known[1]
        # The record may have changed in what the run does not depend on, such as its lease.
        return run if run is None or run.probe is probe else replace(run, probe=probe)


def _run(probe: ProbeRecord, job: Job) -> Run | None:
    """The training of a probe; None for a timing, or where nothing was trained."""
    # What a faulty slice saw may lie beyond the checkpoint that the run resumes from.
    valid = [m for m in probe.slices if not m.outcome.is_fault]
    if probe.purpose is Purpose.TIMING or not valid:
        return None
    measurement = merged(valid)
    if probe.outcome is Outcome.OUT_OF_MEMORY and measurement.samples == 0:
        return None  # it says nothing of the statistics, which more nodes may well train
    if probe.outcome is Outcome.PAUSED and measurement.samples == 0 and not measurement.trained_curve:
        return None  # its first slice was cut off before a checkpoint, and showed nothing
    crossed = job.goal.crossing(measurement.trained_curve)
    return Run(
        probe=probe,
        measurement=measurement,
        samples_to_target=crossed[0] if crossed else None,
        # Logarithms are taken of it: the clock may show nothing yet at a first score.
        seconds_to_target=max(crossed[1], _LEAST_SECONDS) if crossed else None,
        rise_samples=_rise_samples(measurement, job),
        turned_back=None if crossed else _end_of_gain(measurement, job),
    )


def _rise_samples(measurement: Measurement, job: Job) -> int | None:
    """Samples at the first score that is clearly better than the first one."""
    curve, goal = measurement.finite_curve, job.goal
    for point in curve[1:]:
        if goal.sign * (point.value - curve[0].value) > _CLEAR_GAIN * abs(goal.target - curve[0].value):
            return point.samples
    return None


def _end_of_gain(measurement: Measurement, job: Job) -> TurnedBack | None:
    """Where a run that trains turned back, or levelled off below the target; a recorded run goes on."""
    if job.recording() is not None:
        return None
    curve, goal = measurement.trained_curve, job.goal
    found = turned_back(curve, goal.target, maximize=goal.maximize)
    return found or levelled_off(curve, goal.target, maximize=goal.maximize)


def paid_slices(probe: ProbeRecord) -> Iterator[tuple[Measurement, float]]:
    """Each slice of a probe that was charged, with the training seconds that it added.

    What was copied from another probe is not paid for again, and is skipped.
    """
    before = 0.0
    for measurement in probe.slices:
        if measurement.charged_seconds > 0.0:
            start = before if measurement.restart_seconds is None else measurement.restart_seconds
            yield measurement, max(measurement.training_seconds - start, 0.0)
        before = measurement.training_seconds


def is_interrupted(measurement: Measurement, trained: float) -> bool:
    """Whether a slice was ended with the search before its end, so that it brought its run no further.

    Args:
        measurement: Of the slice.
        trained: Training seconds that it added.
    """
    return measurement.outcome is Outcome.PAUSED and trained == 0.0


def run_key(job: Job, configuration: Configuration) -> Configuration:
    """What a run is known by: its statistics; a recorded run is no other configuration's."""
    if job.probe.recording is not None:
        return configuration
    return traits_of(configuration.strategy).statistics_of(configuration)
