"""A ledger in memory, for benchmarks and tests; everything is gone when the process ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import replace
from typing import Any

from search_spaces import Configuration
from tuner.domain.errors import LeaseLostError, StorageError
from tuner.domain.leases import LeaseState
from tuner.domain.ledger import (
    FitRecord,
    Lease,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
    free_name,
)
from tuner.domain.measurement import Measurement, Outcome, Purpose


class MemoryLedger:
    """A `Ledger` for one process and one thread.

    Args:
        clock: Seconds since the epoch.
    """

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._studies: list[StudyRecord] = []
        self._probes: dict[int, ProbeRecord] = {}
        self._leases: dict[int, LeaseState] = {}
        self._predictions: list[PredictionRecord] = []
        self._fits: list[FitRecord] = []
        self._recommendations: list[RecommendationRecord] = []

    def open_study(
        self, job_name: str, fingerprint: str, job: Mapping[str, Any], *, fresh: bool = False
    ) -> StudyRecord:
        copied = deepcopy(dict(job))
        if not fresh:
            for position, study in reversed(list(enumerate(self._studies))):
                if (study.job_name, study.fingerprint) == (job_name, fingerprint):
                    self._studies[position] = replace(study, job=copied)
                    return self._studies[position]
        study = StudyRecord(
            study_id=len(self._studies) + 1,
            name=free_name(job_name, {study.name for study in self._studies}),
            job_name=job_name,
            fingerprint=fingerprint,
            job=copied,
            created_at=self._clock(),
        )
        self._studies.append(study)
        return study

    def change_fingerprint(self, study_id: int, fingerprint: str) -> None:
        self._need_study(study_id)
        self._studies[study_id - 1] = replace(self._studies[study_id - 1], fingerprint=fingerprint)

    def studies(self) -> list[StudyRecord]:
        return list(self._studies)

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
        self._need_study(study_id)
        probe_id, now = len(self._probes) + 1, self._clock()
        self._probes[probe_id] = ProbeRecord(
            probe_id=probe_id,
            study_id=study_id,
            configuration=configuration,
            purpose=purpose,
            trial_number=trial_number,
            slices=(),
            outcome=Outcome.PAUSED,
            reason="",
            lease=None,
            created_at=now,
        )
        return self._lease(probe_id, owner, 1, now + lease_seconds)

    def take_probe(self, probe_id: int, *, owner: str, lease_seconds: float) -> Lease:
        now, state = self._clock(), self._state(probe_id)
        refusal = state.why_not_taken(owner, now)
        if refusal is not None:
            raise LeaseLostError(refusal)
        return self._lease(probe_id, owner, state.attempt + 1, now + lease_seconds)

    def renew(self, lease: Lease, *, lease_seconds: float) -> Lease:
        self._need_lease(lease)
        return self._lease(lease.probe_id, lease.owner, lease.attempt, self._clock() + lease_seconds)

    def append_slice(self, lease: Lease, measurement: Measurement) -> None:
        if measurement.outcome is Outcome.RUNNING:
            raise ValueError(f"a running slice cannot be stored: probe {lease.probe_id} is still running")
        self._need_lease(lease)
        probe = self._probes[lease.probe_id]
        self._probes[lease.probe_id] = replace(probe, slices=(*probe.slices, measurement))
        if not measurement.outcome.can_continue:
            self._end(lease.probe_id, measurement.outcome, measurement.error or "")

    def release(self, lease: Lease) -> None:
        state = self._leases.get(lease.probe_id)
        if state is not None and state.why_lost(lease) is None:
            self._leases[lease.probe_id] = replace(state, owner=None, expires_at=None)

    def end_probe(self, probe_id: int, outcome: Outcome, reason: str) -> None:
        if outcome.can_continue:
            raise ValueError(f"a probe cannot end with the outcome {outcome}")
        if self._state(probe_id).outcome.can_continue:
            self._end(probe_id, outcome, reason)

    def probes(self, study_id: int, known: Sequence[ProbeRecord] = ()) -> list[ProbeRecord]:
        return [self._current(p) for p in self._probes.values() if p.study_id == study_id]

    def outlines(self, study_id: int) -> list[ProbeRecord]:
        return [
            replace(probe, slices=tuple(replace(measured, curve=()) for measured in probe.slices))
            for probe in self.probes(study_id)
        ]

    def best_value(self, study_id: int, *, maximize: bool) -> float | None:
        points = [p for probe in self.probes(study_id) for m in probe.slices for p in m.curve]
        values = [p.value for p in points if p.samples > 0 and not math.isnan(p.value)]
        return (max if maximize else min)(values, default=None)

    def add_predictions(self, predictions: Sequence[PredictionRecord]) -> None:
        for prediction in predictions:
            self._need_study(prediction.study_id)
        self._predictions.extend(deepcopy(list(predictions)))

    def predictions(self, study_id: int) -> list[PredictionRecord]:
        return [p for p in self._predictions if p.study_id == study_id]

    def add_fit(self, fit: FitRecord) -> None:
        self._need_study(fit.study_id)
        self._fits.append(deepcopy(fit))

    def past_fits(self, fingerprint: str) -> list[FitRecord]:
        newest: dict[tuple[int, str], FitRecord] = {}
        for fit in self._fits:
            newest.pop((fit.study_id, fit.model), None)
            newest[fit.study_id, fit.model] = fit
        newest_first = list(newest.values())[::-1]
        return sorted(newest_first, key=lambda fit: fit.fingerprint != fingerprint)

    def add_recommendation(self, recommendation: RecommendationRecord) -> None:
        self._need_study(recommendation.study_id)
        self._recommendations.append(deepcopy(recommendation))

    def recommendations(self, study_id: int) -> list[RecommendationRecord]:
        return [r for r in self._recommendations if r.study_id == study_id]

    def _need_study(self, study_id: int) -> None:
        if not 1 <= study_id <= len(self._studies):
            raise StorageError(f"there is no study {study_id} in this ledger; open the study first")

    def _state(self, probe_id: int) -> LeaseState:
        if probe_id not in self._leases:
            raise StorageError(f"there is no probe {probe_id} in this ledger; start the probe first")
        return self._leases[probe_id]

    def _need_lease(self, lease: Lease) -> None:
        refusal = self._state(lease.probe_id).why_lost(lease)
        if refusal is not None:
            raise LeaseLostError(refusal)

    def _lease(self, probe_id: int, owner: str, attempt: int, expires_at: float) -> Lease:
        self._leases[probe_id] = LeaseState(
            probe_id=probe_id, outcome=Outcome.PAUSED, owner=owner, attempt=attempt, expires_at=expires_at
        )
        return Lease(probe_id=probe_id, owner=owner, attempt=attempt, expires_at=expires_at)

    def _end(self, probe_id: int, outcome: Outcome, reason: str) -> None:
        self._probes[probe_id] = replace(self._probes[probe_id], outcome=outcome, reason=reason)
        self._leases[probe_id] = replace(self._leases[probe_id], outcome=outcome, owner=None, expires_at=None)

    def _current(self, probe: ProbeRecord) -> ProbeRecord:
        state, now = self._leases[probe.probe_id], self._clock()
        return replace(probe, lease=state.held(now), expired_lease=state.expired(now))
