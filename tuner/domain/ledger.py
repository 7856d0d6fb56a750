"""Interface of the database of studies (the ledger), and the dataclasses of its records.

A study is the search for the best configuration of one job. Optuna's study of the same search, which stores
trainings as trials, is called the Optuna study.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose, merged

#: A prediction of a training time counts as early if at most this share of the training was measured when the
#: prediction was made.
EARLY_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """Database record of one study, the search for the best configuration of a job.

    Args:
        study_id: Number of the study, unique in the ledger.
        name: Name of the study, and of the Optuna study that belongs to it: the name of the job for its first
            study, then `name-2`, `name-3`, ...
        job_name: Name of the job.
        fingerprint: Digest of everything that the job's learning curves depend on (`Job.fingerprint`).
        job: Content of the job file as plain data.
        created_at: Time when the study was created, in seconds since the Unix epoch.
    """

    study_id: int
    name: str
    job_name: str
    fingerprint: str
    job: Mapping[str, Any]
    created_at: float


@dataclass(frozen=True, kw_only=True)
class Lease:
    """The exclusive right of one worker (a process) to work on one probe until a given time.

    A probe is a trial training.

    Args:
        probe_id: Number of the probe.
        owner: Name of the worker that has the lease: host, process and a random part.
        attempt: Number of this lease among all leases of the probe, from 1. Only the newest lease is valid.
        expires_at: Time at which the lease expires, in seconds since the Unix epoch.
    """

    probe_id: int
    owner: str
    attempt: int
    expires_at: float


@dataclass(frozen=True, kw_only=True)
class ProbeRecord:
    """Database record of one probe: a short or complete training of one configuration.

    A slice is a part of the probe that runs without interruption; the probe is paused between its slices.

    Args:
        probe_id: Number of the probe, unique in the ledger.
        study_id: Number of the study that the probe belongs to.
        configuration: The configuration that the probe trains.
        purpose: Purpose of the probe, such as to time steps.
        trial_number: Number of the Optuna trial that stores the probe; None if no trial stores it.
        slices: Measurement of each finished slice, in order of time.
        outcome: State of the probe: PAUSED before the first slice and while the probe can resume; its final
            state otherwise.
        reason: Sentence that says why the probe ended; empty if unknown.
        lease: The valid lease; None if there is none.
        created_at: Time when the probe was recorded, seconds since the Unix epoch.
        expired_lease: The newest lease if it expired and its worker did not release it, for instance because
            the worker was killed; None otherwise.
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
    def name(self) -> str:
        """Its name in messages: the number that `paceline trials` lists and `paceline explain` takes."""
        return f"probe {self.probe_id}" if self.trial_number is None else f"trial {self.trial_number}"

    @property
    def was_tried(self) -> bool:
        """Whether the probe has really run.

        It has if any slice ended without an error, processed at least one sample, or ended the probe.
        """
        nothing = (Outcome.PAUSED, 0)
        return any(m.error is None or (m.outcome, m.samples) != nothing for m in self.slices)

    @cached_property
    def measurement(self) -> Measurement | None:
        """The measurements of all finished slices combined; None before the first slice has finished."""
        return merged(self.slices) if self.slices else None


@dataclass(frozen=True, kw_only=True)
class PredictionRecord:
    """Database record of a prediction of the time and price to reach the target. It is never changed.

    Args:
        study_id: Number of the study.
        configuration: The configuration that the prediction is for.
        created_at: Time of the prediction, seconds since the Unix epoch.
        quantiles: Maps each quantile level in (0, 1) to the predicted training seconds to target, ascending.
        dollars: Maps each quantile level in (0, 1) to the predicted dollars to target, ascending.
        probability_of_reaching: Predicted probability that the target is reached at all.
        num_slices: Number of slices that the study had measured when the prediction was made.
        seconds_observed: Training seconds of this configuration that were measured when the prediction was
            made.
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
    """A prediction of the time to target, together with the time that was measured later.

    Args:
        prediction: The prediction, as it was stored.
        measured_seconds: Measured training seconds to target of the predicted configuration.
        share_observed: Share of `measured_seconds` that was already measured when the prediction was made.
    """

    prediction: PredictionRecord
    measured_seconds: float
    share_observed: float

    @classmethod
    def of(cls, prediction: PredictionRecord, seconds: float | None) -> PredictedAgainstMeasured | None:
        """Compares a prediction with the measured seconds to target of its configuration.

        Returns:
            The comparison; None if nothing was measured (`seconds` is None), or if the target had already
            been reached when the prediction was made.
        """
        if seconds is None or prediction.seconds_observed >= seconds:
            return None
        share = min(prediction.seconds_observed / seconds, 1.0) if seconds > 0 else 1.0
        return cls(prediction=prediction, measured_seconds=seconds, share_observed=share)


@dataclass(frozen=True, kw_only=True)
class FitRecord:
    """Database record of the fitted parameters of one prediction model.

    Args:
        study_id: Number of the study.
        fingerprint: Fingerprint of the study's job (`Job.fingerprint`).
        model: Name of the model: `seconds` (per sample), `samples` (to target) or `calibration`.
        created_at: Time of the fit, seconds since the Unix epoch.
        num_slices: Number of slices that the model was fitted to.
        parameters: Maps each parameter's name to its value and standard deviation.
        summary: Quality of the fit: whether it converged, the residual, the parameters that stayed at their
            prior.
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
    """Database record of a recommendation as it was shown to the user.

    Args:
        study_id: Number of the study.
        created_at: Time of the recommendation, seconds since the Unix epoch.
        recommendation: The content of `recommendation.json`.
    """

    study_id: int
    created_at: float
    recommendation: Mapping[str, Any]


def free_name(job_name: str, taken: set[str]) -> str:
    """Returns a name for a new study that no other study has.

    It is the name of the job, or else the first unused of `name-2`, `name-3`, ...

    Args:
        job_name: Name of the job.
        taken: Names of the existing studies.
    """
    number, name = 1, job_name
    while name in taken:
        number += 1
        name = f"{job_name}-{number}"
    return name


class Ledger(Protocol):
    """Interface of the database of studies, trainings, predictions, fitted models and recommendations.

    - A probe is a trial training, and a slice is an uninterrupted part of it.
    - Every method is one transaction: it takes effect completely or not at all.
    - Slices can be added, but never changed or removed.
    - A worker (a process) needs a valid lease to add slices to a probe. After the lease has expired, another
      worker may take the probe. Later results of the first worker are then refused by `LeaseLostError`.
    - Times are seconds since the Unix epoch, from the clock of the database.
    - All methods raise `StorageError` if the database cannot be read or written.
    """

    def open_study(
        self, job_name: str, fingerprint: str, job: Mapping[str, Any], *, fresh: bool = False
    ) -> StudyRecord:
        """Returns the newest study with this job name and fingerprint, or starts a new one.

        If a study is found, its stored job is replaced by `job`, which may differ in keys that the
        fingerprint does not depend on.

        Args:
            job_name: Name of the job; a new study has this name, or `name-2`, `name-3`, ... if it is taken.
            fingerprint: Digest of everything that the job's learning curves depend on (`Job.fingerprint`).
            job: Content of the job file as plain data.
            fresh: Whether to start a new study even if there is a study with this job name and fingerprint.
        """

    def change_fingerprint(self, study_id: int, fingerprint: str) -> None:
        """Changes the fingerprint of a study. Use it only if the study has no measurements yet."""

    def studies(self) -> list[StudyRecord]:
        """Returns all studies, oldest first."""

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
        """Adds a new probe (trial training) to a study, and gives a worker the right to work on it.

        Args:
            study_id: Number of the study.
            configuration: The configuration to train.
            purpose: Purpose of the probe.
            trial_number: Number of the Optuna trial that stores the probe; None for no trial.
            owner: Name of the worker, a process of Paceline.
            lease_seconds: Seconds after which the right (the lease) expires.

        Returns:
            The lease, which has attempt number 1.
        """

    def take_probe(self, probe_id: int, *, owner: str, lease_seconds: float) -> Lease:
        """Gives a worker the right to continue a probe (trial training); returns this right, a lease.

        The probe must be able to resume, and must not be leased to another worker. The new lease has the next
        attempt number.

        Args:
            probe_id: Number of the probe.
            owner: Name of the worker that gets the lease.
            lease_seconds: Seconds until the lease expires.

        Raises:
            LeaseLostError: Another worker has a valid lease on the probe, or the probe has ended.
        """

    def renew(self, lease: Lease, *, lease_seconds: float) -> Lease:
        """Extends a lease, which then expires `lease_seconds` seconds from now; returns the extended lease.

        Raises:
            LeaseLostError: The lease is not valid: another worker took the probe, the lease was released, or
                the probe has ended.
        """

    def append_slice(self, lease: Lease, measurement: Measurement) -> None:
        """Stores the measurement of a finished slice (part) of the probe that the lease is for.

        The slice's outcome becomes the probe's outcome. If the probe cannot continue, the lease is released.

        Raises:
            LeaseLostError: The lease is not valid: another worker took the probe, the lease was released, or
                the probe has ended.
        """

    def release(self, lease: Lease) -> None:
        """Releases a lease, so another worker may take the probe. Does nothing if the lease is invalid."""

    def end_probe(self, probe_id: int, outcome: Outcome, reason: str) -> None:
        """Ends a probe (trial training), even if a worker has a lease on it.

        Does nothing if the probe has ended already.

        Args:
            probe_id: Number of the probe.
            outcome: The final state of the probe.
            reason: Sentence that says why the probe ended.
        """

    def probes(self, study_id: int, known: Sequence[ProbeRecord] = ()) -> list[ProbeRecord]:
        """Returns all probes (trial trainings) of a study with their slices, oldest first.

        Args:
            study_id: Number of the study.
            known: Result of an earlier call. Slices in this result are not read from the store again, because
                stored slices never change.
        """

    def outlines(self, study_id: int) -> list[ProbeRecord]:
        """Returns all probes of a study like `probes`, but without the points of their learning curves.

        Args:
            study_id: Number of the study.
        """

    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        """Returns the best score of all trained models of a study; None without a score.

        Args:
            study_id: Number of the study.
            maximize: Whether larger scores are better.
        """

    def add_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        """Stores several predictions in one transaction."""

    def predictions(self, study_id: int) -> list[PredictionRecord]:
        """Returns all predictions of a study, oldest first."""

    def add_fit(self, fit: FitRecord) -> None:
        """Stores the fitted parameters of a prediction model."""

    def past_fits(self, fingerprint: str) -> list[FitRecord]:
        """Returns the newest fitted parameters of each model and study.

        Fits of studies with the given fingerprint come first, then those of other studies; newer fits come
        before older ones.
        """

    def add_recommendation(self, recommendation: RecommendationRecord) -> None:
        """Stores a recommendation."""

    def recommendations(self, study_id: int) -> list[RecommendationRecord]:
        """Returns all recommendations of a study, oldest first."""
