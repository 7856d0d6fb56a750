"""Converts records to rows and rows to records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Row

from search_spaces import Configuration
from tuner.domain.measurement import Measurement, Outcome, Purpose
from tuner.ledger import (
    FitRecord,
    LeaseState,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
)

#: Fields of a measurement with a column of their own; the rest goes to the slice's `details`.
_SLICE_COLUMNS = (
    "outcome",
    "training_seconds",
    "step",
    "samples",
    "charged_seconds",
    "charged_dollars",
)


def slice_row(measurement: Measurement) -> dict[str, Any]:
    """A slice's own columns, its curve left out."""
    data = measurement.to_dict()
    del data["curve"]
    columns = {name: data.pop(name) for name in _SLICE_COLUMNS}
    for name in ("training_seconds", "charged_seconds", "charged_dollars"):
        columns[name] = float(columns[name])
    for name in ("step", "samples"):
        columns[name] = int(columns[name])
    columns["outcome"] = str(measurement.outcome)
    return {**columns, "details": {**data, "purpose": str(measurement.purpose)}}


def curve_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """The curve of one slice, one row per evaluation, without the keys of probe and study."""
    return [
        {
            "point_index": index,
            "training_seconds": float(point.training_seconds),
            "step": int(point.step),
            "samples": int(point.samples),
            "value": None if math.isnan(point.value) else float(point.value),
        }
        for index, point in enumerate(measurement.curve)
    ]


def measurement(row: Row[Any], points: Sequence[Row[Any]]) -> Measurement:
    """The measurement of one slice from its row and its scorings, in order."""
    curve = [
        {
            "training_seconds": point.training_seconds,
            "step": point.step,
            "samples": point.samples,
            "value": math.nan if point.value is None else point.value,
        }
        for point in points
    ]
    columns = {name: getattr(row, name) for name in _SLICE_COLUMNS}
    return Measurement.from_dict({**row.details, **columns, "curve": curve})


def study(row: Row[Any]) -> StudyRecord:
    """A study from its row."""
    return StudyRecord(
        study_id=row.study_id,
        name=row.name,
        job_name=row.job_name,
        fingerprint=row.fingerprint,
        job=row.job,
        created_at=row.created_at,
    )


def lease_state(row: Row[Any]) -> LeaseState:
    """What a probe's row says of its lease."""
    return LeaseState(
        probe_id=row.probe_id,
        outcome=Outcome(row.outcome),
        owner=row.lease_owner,
        attempt=row.attempt,
        expires_at=row.lease_expires_at,
    )


def probe(row: Row[Any], slices: Sequence[Measurement], now: float) -> ProbeRecord:
    """A probe from its row and its slices, in order.

    Raises:
        ValueError: A slice is of another configuration than the others, so that it was damaged.
    """
    if len({measurement.configuration for measurement in slices}) > 1:
        raise ValueError(f"slices of different configurations in probe {row.probe_id}")
    state = lease_state(row)
    return ProbeRecord(
        probe_id=row.probe_id,
        study_id=row.study_id,
        configuration=Configuration.from_key(row.configuration),
        purpose=Purpose(row.purpose),
        trial_number=row.trial_number,
        slices=tuple(slices),
        outcome=Outcome(row.outcome),
        reason=row.reason,
        lease=state.held(now),
        created_at=row.created_at,
        expired_lease=state.expired(now),
    )


def prediction_row(record: PredictionRecord) -> dict[str, Any]:
    """A prediction's columns."""
    return {
        "study_id": record.study_id,
        "configuration": record.configuration.key,
        "created_at": float(record.created_at),
        "quantiles": _pairs(record.quantiles),
        "dollars": _pairs(record.dollars),
        "probability_of_reaching": float(record.probability_of_reaching),
        "num_slices": int(record.num_slices),
        "seconds_observed": float(record.seconds_observed),
    }


def prediction(row: Row[Any]) -> PredictionRecord:
    """A prediction from its row."""
    return PredictionRecord(
        study_id=row.study_id,
        configuration=Configuration.from_key(row.configuration),
        created_at=row.created_at,
        quantiles=dict(row.quantiles),
        dollars=dict(row.dollars),
        probability_of_reaching=row.probability_of_reaching,
        num_slices=row.num_slices,
        seconds_observed=row.seconds_observed,
    )


def _pairs(quantiles: Mapping[float, float]) -> list[list[float]]:
    return [[float(level), float(value)] for level, value in quantiles.items()]


def fit_row(record: FitRecord) -> dict[str, Any]:
    """A fit's columns."""
    return {
        "study_id": record.study_id,
        "fingerprint": record.fingerprint,
        "model": record.model,
        "created_at": float(record.created_at),
        "num_slices": int(record.num_slices),
        "parameters": record.parameters,
        "summary": record.summary,
    }


def fit(row: Row[Any]) -> FitRecord:
    """A fit from its row."""
    return FitRecord(
        study_id=row.study_id,
        fingerprint=row.fingerprint,
        model=row.model,
        created_at=row.created_at,
        num_slices=row.num_slices,
        parameters={name: (value, deviation) for name, (value, deviation) in row.parameters.items()},
        summary=row.summary,
    )


def recommendation(row: Row[Any]) -> RecommendationRecord:
    """A recommendation from its row."""
    return RecommendationRecord(
        study_id=row.study_id, created_at=row.created_at, recommendation=row.recommendation
    )


def clean_text(text: str) -> str:
    """The text without what PostgreSQL cannot store in it: NUL and unpaired surrogates."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
