"""The contract of ledgers: where studies, probes and predictions are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.ledger.records import (
    FitRecord,
    Lease,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
)


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
