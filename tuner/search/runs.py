"""Training runs of a study, each with the measurements of all its slices.

A probe is one trial training, which is paused between its slices. Its record in the database lists the
slices.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from search_spaces import Configuration, traits_of
from tuner.domain.ledger import ProbeRecord
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged
from tuner.job import Job
from tuner.search.turned_back import TurnedBack, levelled_off, turned_back

#: A run has improved clearly once a score has gained this share of the difference between the target and the
#: first score.
_CLEAR_GAIN = 0.05
#: Minimum training seconds at the target, because the logarithm of this time is used.
_LEAST_SECONDS = 1e-9


@dataclass(frozen=True, kw_only=True)
class Run:
    """A training run that was started, with everything that was measured of it.

    Args:
        probe: Database record of the probe (trial training) that this run belongs to.
        measurement: The measurements of all slices (uninterrupted parts) of the run combined. Slices that
            ended by a fault are left out.
        seconds_to_target: Training seconds from the start until the run reached the target; None if it has
            not reached the target.
        samples_to_target: Number of samples processed when the run reached the target; None if it has not.
        rise_samples: Number of samples processed at the first score that is clearly better than the first
            score of the run; None without such a score.
        turned_back: The best score of a run that has stopped improving, because its scores got worse or
            levelled off; None while the run may still improve.
    """

    probe: ProbeRecord
    measurement: Measurement
    seconds_to_target: float | None
    samples_to_target: float | None
    rise_samples: int | None = None
    turned_back: TurnedBack | None = None

    @property
    def seen_samples(self) -> int:
        """Number of samples that the run had processed when it last reported.

        This may be more than at its last checkpoint.
        """
        return max([self.measurement.samples, *(p.samples for p in self.measurement.curve[-1:])])

    @property
    def seen_seconds(self) -> float:
        """Training seconds of the run when it last reported.

        They may be more than at its last checkpoint.
        """
        last = self.measurement.curve[-1:]
        return max([self.measurement.training_seconds, *(p.training_seconds for p in last)])

    @property
    def configuration(self) -> Configuration:
        """The configuration that the run trains."""
        return self.probe.configuration

    @property
    def arrived(self) -> bool:
        """Whether the run has reached the target."""
        return self.seconds_to_target is not None

    @property
    def ended_by_itself(self) -> bool:
        """Whether the run's script, schedule or recording ended before the run reached the target."""
        last = self.probe.slices[-1]
        return last.outcome is Outcome.STOPPED and last.error is None and not self.arrived

    @property
    def is_open(self) -> bool:
        """Whether the run can continue with another slice of the same probe (trial training)."""
        return self.probe.outcome.can_continue and not self.arrived

    @property
    def has_ended(self) -> bool:
        """Whether the run ended before it reached the target and cannot resume."""
        return not self.arrived and not self.can_continue

    @property
    def can_continue(self) -> bool:
        """Whether the training can resume, possibly as a new probe after a failure or a new target."""
        moved = self.probe.outcome is Outcome.REACHED and not self.arrived
        return self.is_open or moved or (self.probe.outcome.is_fault and not self.arrived)


class RunCache:
    """Caches the runs of a search, each until its probe gets another slice or another outcome.

    A probe is one trial training, whose record in the database lists its slices. Stored slices never change,
    so the number of slices shows whether the cached run is still valid.

    Args:
        job: The job, which defines the target.
    """

    def __init__(self, job: Job) -> None:
        self._job = job
        self._known: dict[int, tuple[tuple[int, Outcome], Run | None]] = {}

    def run(self, probe: ProbeRecord) -> Run | None:
        """Returns the run of a probe; None if the probe only timed steps or has trained nothing."""
        key = (len(probe.slices), probe.outcome)
        known = self._known.get(probe.probe_id)
        if known is None or known[0] != key:
            known = self._known[probe.probe_id] = (key, _run(probe, self._job))
        run = known[1]
        # The probe's record may have changed in fields that the run does not use, such as the lease.
        return run if run is None or run.probe is probe else replace(run, probe=probe)


def _run(probe: ProbeRecord, job: Job) -> Run | None:
    """Computes the run of a probe; None if the probe only timed steps or has trained nothing."""
    # Leave out slices that ended by a fault. Their scores may be from after the checkpoint from which the run
    # resumes.
    valid = [m for m in probe.slices if not m.outcome.is_fault]
    if probe.purpose is Purpose.TIMING or not valid:
        return None
    whole = probe.measurement
    measurement = whole if whole is not None and len(valid) == len(probe.slices) else merged(valid)
    if probe.outcome is Outcome.OUT_OF_MEMORY and measurement.samples == 0:
        return None  # the same learning curve may fit in memory on more nodes
    if probe.outcome is Outcome.PAUSED and measurement.samples == 0 and not measurement.trained_curve:
        return None  # the first slice was interrupted before a checkpoint or a score
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
    """Returns how many samples a run had processed when it first improved clearly; None if it has not."""
    curve, goal = measurement.finite_curve, job.goal
    for point in curve[1:]:
        if goal.sign * (point.value - curve[0].value) > _CLEAR_GAIN * abs(goal.target - curve[0].value):
            return point.samples
    return None


def _end_of_gain(measurement: Measurement, job: Job) -> TurnedBack | None:
    """Returns the best score of a run that has stopped improving; None if it may improve or was recorded."""
    if job.recording() is not None:
        return None
    curve, goal = measurement.trained_curve, job.goal
    found = turned_back(curve, goal.target, maximize=goal.maximize)
    return found or levelled_off(curve, goal.target, maximize=goal.maximize)


def paid_slices(probe: ProbeRecord) -> Iterator[tuple[Measurement, float]]:
    """Yields each charged slice of a probe: its measurement, and the training seconds of this slice alone.

    The first measurement of a probe may be a copy from another probe, whose run it continues. The copy has no
    charge and is skipped.
    """
    before = 0.0
    for measurement in probe.slices:
        if measurement.charged_seconds > 0.0:
            start = before if measurement.restart_seconds is None else measurement.restart_seconds
            yield measurement, max(measurement.training_seconds - start, 0.0)
        before = measurement.training_seconds


def continues_another(probe: ProbeRecord) -> bool:
    """Whether the run of a probe continues that of another probe, whose measurements were copied."""
    # A slice that was interrupted at its start has no charge either, but no samples.
    first = probe.slices[0]
    return first.charged_seconds == 0.0 and first.samples > 0


def is_interrupted(measurement: Measurement, trained: float) -> bool:
    """Whether a slice was interrupted by the end of the search, so its training is lost.

    Args:
        measurement: Measurement of the slice.
        trained: Training seconds of the slice, from `paid_slices`.
    """
    return measurement.outcome is Outcome.PAUSED and trained == 0.0


def run_key(job: Job, configuration: Configuration) -> Configuration:
    """Returns a key that is equal for configurations with the same learning curve.

    For example, two configurations with all-reduce that differ only in the number of nodes have equal keys,
    because their metric after a given number of samples is the same. So a run of one configuration predicts
    the scores of the other. If the job replays a recording, every configuration has a different key.

    Args:
        job: The job.
        configuration: The configuration.
    """
    if job.probe.recording is not None:
        return configuration
    return traits_of(configuration.strategy).statistics_of(configuration)
