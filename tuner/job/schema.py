"""The JSON Schema of job files, for editors and other tools."""

from __future__ import annotations

from typing import Any

from tuner.job.model import Job


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job file, with a description for every key."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Job.model_json_schema(mode="validation"),
        "title": "Paceline job file",
    }
