"""Makes the texts of data files: `trials.csv`, and `report.json` if a search found no recommendation."""

from __future__ import annotations

import json
import math
from typing import Any

from tuner.domain.ledger import ProbeRecord
from tuner.domain.safe_text import csv_text
from tuner.report.content import ReportContent, UnansweredContent
from tuner.report.tables import best_value, last_value

#: Version of the format of `report.json`; incompatible changes raise the first number.
UNANSWERED_VERSION = "1.0"


def trials_csv(content: ReportContent) -> str:
    """Returns the probes of a study as comma-separated values.

    There is a column for every axis (parameter) of the configurations. Unknown and non-finite values are
    empty cells.
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


def unanswered_json(content: UnansweredContent) -> str:
    """Returns the text of `report.json`, in which `recommendation` is null."""
    maximize = content.job.goal.maximize
    probes: list[dict[str, Any]] = []
    for probe in content.probes:
        seen = probe.measurement
        probes.append(
            {
                "trial": probe.trial_number,
                "purpose": probe.purpose.value,
                "configuration": probe.configuration.as_dict(),
                "outcome": probe.outcome.value,
                "samples": seen.samples if seen else 0,
                "charged_seconds": seen.charged_seconds if seen else 0.0,
                "scores": len(seen.trained_curve) if seen else 0,
                "best_value": best_value(seen, maximize=maximize),
                "last_value": last_value(seen),
                "error": seen.error if seen else None,
            }
        )
    data = {
        "schema_version": UNANSWERED_VERSION,
        "job_name": content.job.name,
        "study_name": content.study_name,
        "created_at": content.created_at,
        "goal": content.goal,
        "recommendation": None,
        "reason": content.reason,
        "changes": list(content.changes),
        "warnings": list(content.warnings),
        "stop_reason": content.stop_reason,
        "tuning_seconds": content.tuning.seconds,
        "tuning_dollars": content.tuning.dollars,
        "probes": probes,
    }
    return json.dumps(data, indent=2, allow_nan=False) + "\n"
