from __future__ import annotations

import json
import tomllib

import pytest

from tuner.job import example_names, example_text, job_schema, job_template


def resolved(schema, root):
    """The alternatives a (sub)schema stands for, references followed."""
    if "$ref" in schema:
        return resolved(root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    for word in ("oneOf", "anyOf"):
        if word in schema:
            return [found for inner in schema[word] for found in resolved(inner, root)]
    return [schema]


def unknown_keys(value, schemas, root, path=""):
    if not isinstance(value, dict):
        return []
    tables = [schema for schema in schemas if schema.get("type") == "object"]
    unknown = []
    for key, inner in value.items():
        found = [table["properties"][key] for table in tables if key in table.get("properties", {})]
        is_free = any(table.get("additionalProperties") is True for table in tables)
        if not found and not is_free:
            unknown.append(f"{path}.{key}")
        nested = [schema for one in found for schema in resolved(one, root)]
        unknown += unknown_keys(inner, nested, root, f"{path}.{key}") if found else []
    return unknown


def is_valid(value, schema, root):
    """Whether what JSON Schema says of needed and forbidden keys holds; values are not looked at."""
    if isinstance(schema, bool):
        return schema
    if "$ref" in schema:
        return is_valid(value, root["$defs"][schema["$ref"].rsplit("/", 1)[-1]], root)
    if "const" in schema:
        return value == schema["const"]
    if not isinstance(value, dict):
        return True
    if "if" in schema:
        branch = "then" if is_valid(value, schema["if"], root) else "else"
        if not is_valid(value, schema[branch], root):
            return False
    properties = schema.get("properties", {})
    there = all(key in value for key in schema.get("required", []))
    return there and all(is_valid(value[k], inner, root) for k, inner in properties.items() if k in value)


TRAINING = {
    "workload": {"path": "a:B"},
    "goal": {"target": 1},
    "space": {"batch_size": [1], "learning_rate": [1]},
}
REPLAY = {"probe": {"kind": "recorded", "recording": "r.jsonl.gz"}}


@pytest.mark.parametrize(
    ("job", "expected"),
    [
        (TRAINING, True),
        (REPLAY, True),
        ({**REPLAY, "goal": {"trainings": 3}}, True),
        ({**TRAINING, "goal": {}}, False),
        ({name: table for name, table in TRAINING.items() if name != "space"}, False),
        ({**REPLAY, "workload": {"path": "a:B"}}, False),
        ({"probe": {"kind": "recorded"}}, False),
    ],
)
def test_a_recording_takes_the_place_of_what_other_jobs_must_state(job, expected):
    schema = job_schema()
    assert is_valid(job, schema, schema) is expected


@pytest.mark.parametrize("text", [job_template(), *map(example_text, example_names())])
def test_the_schema_knows_every_key_of_template_and_examples(text):
    schema = job_schema()
    assert unknown_keys(tomllib.loads(text), [schema], schema) == []


def test_the_check_itself_finds_a_key_the_schema_does_not_know():
    schema = job_schema()
    job = {"goal": {"targt": 1}, "space": {"learning_rate": {"hgh": 1}}}
    assert unknown_keys(job, [schema], schema) == [".goal.targt", ".space.learning_rate.hgh"]


def test_every_key_is_described():
    schema = job_schema()
    tables = [schema, *schema["$defs"].values()]
    missing = [
        f"{table['title']}.{key}"
        for table in tables
        for key, inner in table.get("properties", {}).items()
        if not inner.get("description")
    ]
    assert missing == []


def test_the_schema_is_titled_json():
    schema = json.loads(json.dumps(job_schema()))
    assert schema["title"] == "Paceline job file"
    assert schema["additionalProperties"] is False
