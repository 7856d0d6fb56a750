"""Interface for reading studies page by page, for a server that runs for months; and its records.

The ledger caches what it reads, because a search reads the same study many times. These reads cache nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from search_spaces import Configuration
from tuner.domain.ledger import PredictionRecord, ProbeRecord
from tuner.domain.measurement import CurvePoint, Outcome, Purpose


@dataclass(frozen=True, kw_only=True)
class ProbeSummary:
    """One probe (trial training) in numbers, without its curve.

    Args:
        probe_id: Number of the probe.
        configuration: The configuration that the probe trains.
        purpose: Purpose of the probe.
        outcome: State of the probe.
        reason: Sentence that says why the probe ended; empty if unknown.
        created_at: Seconds since the Unix epoch.
        is_running: Whether a worker has a valid lease on the probe.
        num_slices: Number of finished slices (uninterrupted parts of the training).
        step: Number of optimizer steps at the end of the last slice.
        samples: Number of samples at the end of the last slice.
        training_seconds: Training seconds at the end of the last slice.
        charged_seconds: Wall-clock seconds that all slices are charged for.
        charged_dollars: Price of these seconds.
        last_value: The metric at the last evaluation; None without one.
    """

    probe_id: int
    configuration: Configuration
    purpose: Purpose
    outcome: Outcome
    reason: str
    created_at: float
    is_running: bool
    num_slices: int
    step: int
    samples: int
    training_seconds: float
    charged_seconds: float
    charged_dollars: float
    last_value: float | None


class StudyReads(Protocol):
    """Interface for reading studies without caching what was read.

    A study without records, or a number without a study, gives empty results. All methods raise
    `StorageError` if the database cannot be read.
    """

    def goal(self, study_id: int) -> Mapping[str, Any]:
        """Returns the section `[goal]` of the job of a study; empty if there is none."""

    def probes(self, study_id: int, *, after: int = 0, limit: int = 100) -> list[ProbeSummary]:
        """Returns the probes of a study with a number above `after`, oldest first."""

    def curves(
        self, study_id: int, probe_ids: Sequence[int], *, most_points: int
    ) -> dict[int, list[CurvePoint]]:
        """Returns the learning curves of probes, as `tuner.domain.measurement.merged` would make them.

        Args:
            study_id: Number of the study. Probes of other studies are left out.
            probe_ids: Numbers of the probes.
            most_points: Largest number of points of a curve. A longer curve is thinned evenly; its first and
                last points stay.
        """

    def reached(self, study_id: int, *, limit: int = 1000) -> list[ProbeRecord]:
        """Returns the probes of a study that reached the target, oldest first, with their slices."""

    def predictions(
        self, study_id: int, *, after: int = 0, limit: int = 100
    ) -> list[tuple[int, PredictionRecord]]:
        """Returns predictions of a study with a number above `after`, oldest first, with their numbers."""

    def recommendation(self, study_id: int) -> Mapping[str, Any] | None:
        """Returns the newest recommendation of a study; None if there is none."""

    def file_size(self, digest: str) -> int | None:
        """Returns the size in bytes of a stored file with a SHA-256; None if there is none."""

    def queued_since(self) -> float | None:
        """Returns the time when the oldest job that is queued was submitted; None if no job is queued."""
