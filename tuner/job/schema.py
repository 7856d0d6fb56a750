"""The JSON Schema of job files, for editors and other tools."""

from __future__ import annotations

from typing import Any

from tuner.job.model import Job


def job_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a job file, with a description for every key.

    What a job that replays a recording leaves to it is needed by every other job only.
    """
    schema = Job.model_json_schema(mode="validation")
    del schema["required"]
    schema["$defs"]["GoalSection"]["required"].remove("target")
    # A table may be of both kinds at once: pydantic decides by type, a job file by its probe.
    kinds, nothing = schema["properties"]["baseline"]["anyOf"]
    schema["properties"]["baseline"]["anyOf"] = [*kinds["oneOf"], nothing]
    settings = {"anyOf": [kinds["oneOf"][0], nothing]}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        "title": "Paceline job file",
        "if": {
            "required": ["probe"],
            "properties": {"probe": {"required": ["kind"], "properties": {"kind": {"const": "recorded"}}}},
        },
        "then": {
            "properties": {
                **dict.fromkeys(("workload", "cluster", "space"), False),
                "probe": {"required": ["recording"]},
            }
        },
        "else": {
            "required": ["workload", "goal", "space"],
            "properties": {"goal": {"required": ["target"]}, "baseline": settings},
        },
    }
