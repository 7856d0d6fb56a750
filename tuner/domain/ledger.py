"""What a study stores: the records, the rules of leases, and the interface of ledgers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged

#: A prediction counts as early while at most this share of the run was known.
EARLY_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """One search for one job.

    Args:
        study_id: Unique in the ledger.
        name: The Optuna study's name as well: the job's name, with a number from the second study on.
        job_name: The job's name.
        fingerprint: What its curves depend on (`Job.fingerprint`).
        job: The job as plain data.
        created_at: Seconds since the epoch.
    """

    study_id: int
    name: str
    job_name: str
    fingerprint: str
    job: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The right of one worker to carry out slices of one probe, until it expires.

    Args:
        probe_id: The probe.
        owner: The worker: host, process and a random part.
        attempt: Counts how often the probe was taken; a lease with an older attempt is lost.
        expires_at: Seconds since the epoch.
    """

    probe_id: int
    owner: str
    attempt: int
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class ProbeRecord:
    """One probe of one configuration, with the slices carried out so far.

    Args:
        probe_id: Unique in the ledger.
        study_id: Its study.
        configuration: The configuration probed.
        purpose: Why it is probed.
        trial_number: Its Optuna trial; None if it has none.
        slices: The measurement of each slice, in order.
        outcome: PAUSED while it may resume; its end otherwise. Before the first slice: PAUSED.
        reason: Why it ended, in words.
        lease: The lease that holds now; None if there is none.
        created_at: Seconds since the epoch.
        expired_lease: A lease that ran out and was not given back, as of a worker that was killed.
    """

    probe_id: int
    study_id: int
    configuration: Configuration
    purpose: Purpose
    trial_number: int | None
    slices: tuple[Measurement, ...]
    outcome: Outcome
    reason: str
    lease: Lease | None
    created_at: float
    expired_lease: Lease | None = None

    @property
    def was_tried(self) -> bool:
        """Whether a slice was neither lost nor interrupted, or trained at least a sample."""
        nothing = (Outcome.PAUSED, 0)
        return any(m.error is None or (m.outcome, m.samples) != nothing for m in self.slices)

    @property
    def measurement(self) -> Measurement | None:
        """All slices as one measurement; None before the first."""
        return merged(self.slices) if self.slices else None


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """A prediction as it was made, with what was known then; never changed afterwards.

    Args:
        study_id: Its study.
        configuration: What it is about.
        created_at: Seconds since the epoch.
        quantiles: Level in (0, 1) to predicted training seconds to target, ascending.
        dollars: Level in (0, 1) to predicted dollars to target, ascending.
        probability_of_reaching: Chance that the target is reached at all.
        num_slices: Slices known to the study when it was made.
        seconds_observed: Training seconds of this configuration's own run known then.
    """

    study_id: int
    configuration: Configuration
    created_at: float
    quantiles: Mapping[float, float]
    dollars: Mapping[float, float]
    probability_of_reaching: float
    num_slices: int
    seconds_observed: float


@dataclass(frozen=True, kw_only=True)
class PredictedAgainstMeasured:
    """One prediction, and what was measured later.

    Args:
        prediction: As it was made.
        measured_seconds: Training seconds to target of that configuration's run.
        share_observed: Share of that run which was known when the prediction was made.
    """

    prediction: PredictionRecord
    measured_seconds: float
    share_observed: float


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """The result of a model's fit.

    Args:
        study_id: Its study.
        fingerprint: Of the study's job.
        model: `seconds`, `samples` or `calibration`.
        created_at: Seconds since the epoch.
        num_slices: Slices that went in.
        parameters: Parameter name to (value, standard deviation), as the model states them.
        summary: Whether it converged, the residual, the parameters left at their prior.
    """

    study_id: int
    fingerprint: str
    model: str
    created_at: float
    num_slices: int
    parameters: Mapping[str, tuple[float, float]]
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class RecommendationRecord:
    """A recommendation as it was given.

    Args:
        study_id: Its study.
        created_at: Seconds since the epoch.
        recommendation: The content of `recommendation.json`.
    """

    study_id: int
    created_at: float
    recommendation: Mapping[str, Any]


def free_name(job_name: str, taken: set[str]) -> str:
    """The job's name, or the first of `name-2`, `name-3`, ... that no study bears."""
    number, name = 1, job_name
    while name in taken:
        number += 1
        name = f"{job_name}-{number}"
    return name


@dataclass(frozen=True, kw_only=True)
class LeaseState:
    """The state of a probe's lease.

    Args:
        probe_id: The probe.
        outcome: The probe's state.
        owner: Worker that holds the newest lease; None if it was released or the probe has ended.
        attempt: Number of leases so far.
        expires_at: Expiry of the lease, seconds since the epoch; None without an owner.
    """

    probe_id: int
    outcome: Outcome
    owner: str | None
    attempt: int
    expires_at: float | None

    def held(self, now: float) -> Lease | None:
        """The valid lease; None if there is none or it has expired."""
        newest = self._newest()
        return None if newest is None or newest.expires_at <= now else newest

    def expired(self, now: float) -> Lease | None:
        """The newest lease if it has expired without being released; None otherwise."""
        newest = self._newest()
        return None if newest is None or newest.expires_at > now else newest

    def _newest(self) -> Lease | None:
        if self.owner is None or self.expires_at is None:
            return None
        return Lease(
            probe_id=self.probe_id, owner=self.owner, attempt=self.attempt, expires_at=self.expires_at
        )

    def why_not_taken(self, owner: str, now: float) -> str | None:
        """A message why `owner` may not take the probe; None if it may."""
        if not self.outcome.can_continue:
            return f"probe {self.probe_id} has ended ({self.outcome}) and cannot be taken"
        holder = self.held(now)
        if holder is not None and holder.owner != owner:
            remaining = holder.expires_at - now
            return (
                f"probe {self.probe_id} is held by {holder.owner} (attempt {holder.attempt}) "
                f"for another {remaining:.0f} s; take another probe, or wait"
            )
        return None

    def why_lost(self, lease: Lease) -> str | None:
        """A message why a lease is no longer valid; None if it is valid.

        An expired lease stays valid until another worker takes the probe.
        """
        if not self.outcome.can_continue:
            return f"probe {self.probe_id} has ended ({self.outcome}); nothing more is stored for it"
        if self.attempt != lease.attempt or self.owner not in (None, lease.owner):
            return (
                f"probe {self.probe_id} was taken by {self.owner or 'another worker'} (attempt "
                f"{self.attempt}); attempt {lease.attempt} of {lease.owner} comes too late"
            )
        if self.owner is None:
            return f"the lease on probe {self.probe_id} was given back; take the probe again first"
        return None


class Ledger(Protocol):
    """Stores what was paid for. Every method is one transaction: it happens whole or not at all.

    Slices are append-only. A probe is worked on under a lease; when a lease has run out, another
    worker may take the probe, and later results of the first one are refused with
    `LeaseLostError`, which does no harm. Times are seconds since the epoch, from the ledger's clock.

    All methods raise `StorageError` if the store cannot be read or written.
    """

    def open_study(
        self, job_name: str, fingerprint: str, job: Mapping[str, Any], *, fresh: bool = False
    ) -> StudyRecord:
        """The newest study of this job name and fingerprint, or a new one.

        A study resumes if the job has changed only in what the fingerprint leaves out; its stored
        job becomes the one given. With `fresh`, or if there is none, a new study begins; its name is
        the job's name, then `name-2`, `name-3`, and so on.
        """

    def change_fingerprint(self, study_id: int, fingerprint: str) -> None:
        """Gives a study another fingerprint: for one in which nothing was measured."""

    def studies(self) -> list[StudyRecord]:
        """Every study, oldest first."""

    def start_probe(
        self,
        study_id: int,
        configuration: Configuration,
        purpose: Purpose,
        *,
        trial_number: int | None,
        owner: str,
        lease_seconds: float,
    ) -> Lease:
        """Records a new probe and leases it to `owner` (attempt 1)."""

    def take_probe(self, probe_id: int, *, owner: str, lease_seconds: float) -> Lease:
        """Leases a probe that may resume: one without a lease, one whose lease has run out, or one's own.

        The attempt is counted up.

        Raises:
            LeaseLostError: Another worker holds it, or it has ended.
        """

    def renew(self, lease: Lease, *, lease_seconds: float) -> Lease:
        """Moves a lease's expiry to now plus `lease_seconds`.

        Raises:
            LeaseLostError: The probe was taken by another attempt, released, or has ended.
        """

    def append_slice(self, lease: Lease, measurement: Measurement) -> None:
        """Adds a finished slice; its outcome becomes the probe's. An end releases the lease.

        Raises:
            LeaseLostError: The probe was taken by another attempt, released, or has ended.
        """

    def release(self, lease: Lease) -> None:
        """Gives a lease back; does nothing if it was lost already."""

    def end_probe(self, probe_id: int, outcome: Outcome, reason: str) -> None:
        """Ends a probe that will not resume, whichever worker leases it. An ended probe does not change."""

    def probes(self, study_id: int, known: Sequence[ProbeRecord] = ()) -> list[ProbeRecord]:
        """Every probe of a study with its slices, oldest first.

        Args:
            study_id: The study.
            known: The result of an earlier call. Slices never change, so its slices are not read again.
        """

    def add_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        """Stores several predictions in one transaction."""

    def predictions(self, study_id: int) -> list[PredictionRecord]:
        """Every prediction of a study, oldest first."""

    def add_fit(self, fit: FitRecord) -> None:
        """Stores a fit."""

    def past_fits(self, fingerprint: str) -> list[FitRecord]:
        """The newest fit of each model of each study: those of this fingerprint first, newest first."""

    def add_recommendation(self, recommendation: RecommendationRecord) -> None:
        """Stores a recommendation."""

    def recommendations(self, study_id: int) -> list[RecommendationRecord]:
        """Every recommendation of a study, oldest first."""
