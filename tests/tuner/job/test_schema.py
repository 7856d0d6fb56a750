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
    assert schema["required"] == ["workload", "goal", "space"]
    assert schema["additionalProperties"] is False
