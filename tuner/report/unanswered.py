"""Writes the text of `report.json` for a search that ended without a recommendation."""

from __future__ import annotations

import json
from typing import Any

from tuner.report.content import UnansweredContent
from tuner.report.tables import best_value, last_value

#: Version of the format of `report.json`; incompatible changes raise the first number.
UNANSWERED_VERSION = "1.0"


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
