"""Writes the text of `trials.csv`: one line per probe, with unrounded numbers."""

from __future__ import annotations

import math

from tuner.domain.ledger import ProbeRecord
from tuner.domain.safe_text import csv_text
from tuner.report.content import ReportContent
from tuner.report.tables import best_value, last_value


def trials_csv(content: ReportContent) -> str:
    """Returns the probes of a study as comma-separated values.

    There is a column for every axis that a configuration has. Unknown and non-finite values are empty cells.
    """
    axes = list(dict.fromkeys(axis for probe in content.probes for axis in probe.configuration))
    maximize = content.job.goal.maximize
    columns = [
        "trial_number", "purpose", *axes, "outcome", "samples", "training_seconds", "best_value",
        "last_value", "charged_seconds", "charged_dollars", "step_seconds_median", "reason", "error",
    ]  # fmt: skip
    rows = [{**_cells(probe, maximize=maximize), **probe.configuration} for probe in content.probes]
    return csv_text(columns, [{key: _finite(value) for key, value in row.items()} for row in rows])


def _cells(probe: ProbeRecord, *, maximize: bool) -> dict[str, object]:
    cells: dict[str, object] = {
        "trial_number": probe.trial_number,
        "purpose": probe.purpose.value,
        "outcome": probe.outcome.value,
        "reason": probe.reason,
    }
    measurement = probe.measurement
    if measurement is None:
        return cells
    steps = measurement.step_seconds
    return cells | {
        "samples": measurement.samples,
        "training_seconds": measurement.training_seconds,
        "best_value": best_value(measurement, maximize=maximize),
        "last_value": last_value(measurement),
        "charged_seconds": measurement.charged_seconds,
        "charged_dollars": measurement.charged_dollars,
        "step_seconds_median": None if steps is None else steps.median,
        "error": measurement.error,
    }


def _finite(value: object) -> object:
    return None if isinstance(value, float) and not math.isfinite(value) else value
