"""Converts the ledger's records to rows of the database's tables, and rows to records."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from sqlalchemy import Row

from search_spaces import Configuration
from tuner.domain.leases import LeaseState
from tuner.domain.ledger import (
    FitRecord,
    PredictionRecord,
    ProbeRecord,
    RecommendationRecord,
    StudyRecord,
)
from tuner.domain.measurement import CurvePoint, Measurement, Outcome, Purpose

#: Fields of a measurement that have their own column; the other fields are stored in the column `details`.
_SLICE_COLUMNS = (
    "outcome",
    "training_seconds",
    "step",
    "samples",
    "charged_seconds",
    "charged_dollars",
)


def slice_row(measurement: Measurement) -> dict[str, Any]:
    """Returns the column values of a slice, without its curve."""
    data = {**measurement.to_dict(), "outcome": str(measurement.outcome), "purpose": str(measurement.purpose)}
    del data["curve"]
    columns = {name: data.pop(name) for name in _SLICE_COLUMNS}
    return {**_plain_numbers(columns), "details": data}


def curve_rows(measurement: Measurement) -> list[dict[str, Any]]:
    """Returns the rows of a slice's metric curve, one per evaluation, without the ids of probe and study."""
    return [
        {
            **_values(point),
            "point_index": index,
            "value": None if math.isnan(point.value) else float(point.value),
        }
        for index, point in enumerate(measurement.curve)
    ]


def measurement(row: Row[Any], points: Sequence[CurvePoint], before: Measurement | None) -> Measurement:
    """Creates the measurement of a slice.

    Args:
        row: Row of the table of slices.
        points: Evaluations of the slice, in order.
        before: Measurement of an earlier slice of the same probe, with which the configuration is shared to
            save memory; None for the first slice.
    """
    columns = {name: getattr(row, name) for name in _SLICE_COLUMNS}
    details = row.details
    if before is not None and details["configuration"] == before.configuration.as_dict():
        details = {**details, "configuration": before.configuration}
    return Measurement.from_dict({**details, **columns, "curve": points})


def study(row: Row[Any]) -> StudyRecord:
    """Creates a study record from its row."""
    return StudyRecord(**_columns(row, StudyRecord))


def lease_state(row: Row[Any]) -> LeaseState:
    """Creates the state of a probe's lease (which worker may run the probe) from the probe's row."""
    return LeaseState(
        probe_id=row.probe_id,
        outcome=Outcome(row.outcome),
        owner=row.lease_owner,
        attempt=row.attempt,
        expires_at=row.lease_expires_at,
    )


def probe(row: Row[Any], slices: Sequence[Measurement], now: float) -> ProbeRecord:
    """Creates a probe record from its row and its slices.

    Args:
        row: Row of the table of probes.
        slices: Measurements of the probe's slices, in order.
        now: Present time in seconds since the Unix epoch, to tell whether a worker still has a lease on the
            probe.

    Raises:
        ValueError: The slices have different configurations, so the database is damaged.
    """
    if len({measurement.configuration for measurement in slices}) > 1:
        raise ValueError(f"probe {row.probe_id} has slices of different configurations")
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
    """Returns the column values of a prediction."""
    return {
        **_values(record),
        "configuration": record.configuration.key,
        "quantiles": _pairs(record.quantiles),
        "dollars": _pairs(record.dollars),
    }


def prediction(row: Row[Any]) -> PredictionRecord:
    """Creates a prediction record from its row."""
    changed = {
        "configuration": Configuration.from_key(row.configuration),
        "quantiles": dict(row.quantiles),
        "dollars": dict(row.dollars),
    }
    return PredictionRecord(**{**_columns(row, PredictionRecord), **changed})


def _pairs(quantiles: Mapping[float, float]) -> list[list[float]]:
    return [[float(level), float(value)] for level, value in quantiles.items()]


def fit_row(record: FitRecord) -> dict[str, Any]:
    """Returns the column values of a model fit."""
    return _values(record)


def fit(row: Row[Any]) -> FitRecord:
    """Creates the record of a model fit from its row."""
    parameters = {name: (value, deviation) for name, (value, deviation) in row.parameters.items()}
    return FitRecord(**{**_columns(row, FitRecord), "parameters": parameters})


def recommendation(row: Row[Any]) -> RecommendationRecord:
    """Creates a recommendation record from its row."""
    return RecommendationRecord(**_columns(row, RecommendationRecord))


def _columns(row: Row[Any], kind: type[Any]) -> dict[str, Any]:
    """Returns the columns of a row that are fields of the record class `kind`, by name."""
    return {field.name: getattr(row, field.name) for field in fields(kind)}


def _values(record: Any) -> dict[str, Any]:
    """Returns the fields of a record by name, with NumPy numbers converted."""
    return _plain_numbers({field.name: getattr(record, field.name) for field in fields(record)})


def _plain_numbers(values: Mapping[str, Any]) -> dict[str, Any]:
    """Converts NumPy numbers to Python numbers, because database drivers accept no others."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def clean_text(text: str) -> str:
    """Replaces NUL characters and unpaired surrogates, which PostgreSQL cannot store."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode("utf-8")
