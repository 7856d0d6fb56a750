"""The records of a ledger, as plain frozen data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

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
