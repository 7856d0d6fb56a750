"""The JSON Schema of `recommendation.json`, generated from the dataclasses of a recommendation."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

from search_spaces import Configuration
from tuner.domain.recommendation import SCHEMA_VERSION, Recommendation

_PLAIN = {str: "string", int: "integer", float: "number", bool: "boolean"}

_AXES: dict[str, Any] = {
    "type": "object",
    "description": "Axis to value.",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def recommendation_schema() -> dict[str, Any]:
    """Returns the JSON Schema (draft 2020-12) of `recommendation.json`.

    The descriptions in the schema are the docstrings of the dataclasses.
    """
    schema = _of_dataclass(Recommendation)
    # The schema has no `$id`, since it is not published at a URL: `paceline schema` prints it.
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Paceline recommendation {SCHEMA_VERSION}",
        **schema,
    }


def _of_dataclass(kind: type) -> dict[str, Any]:
    hints = typing.get_type_hints(kind)
    said = _descriptions(kind.__doc__ or "")
    properties = {}
    for field in fields(kind):
        described = {"description": said[field.name]} if field.name in said else {}
        properties[field.name] = {**_of(hints[field.name], kind), **described}
    return {
        "type": "object",
        "description": (kind.__doc__ or "").split("\n")[0],
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
    }


def _of(hint: Any, owner: type) -> dict[str, Any]:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        options = [_of(argument, owner) for argument in arguments if argument is not type(None)]
        return {"anyOf": [*options, {"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _of(arguments[0], owner)}
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _of(arguments[1], owner)}
    if hint is Configuration:
        return dict(_AXES)
    if is_dataclass(hint) and isinstance(hint, type):
        return _of_dataclass(hint)
    if hint is float:
        # Infinite numbers are written as null, such as the upper end of an interval without a bound.
        return {"type": ["number", "null"]}
    return {"type": _PLAIN[hint]}


def _descriptions(docstring: str) -> dict[str, str]:
    _, _, section = docstring.partition("Args:\n")
    found: dict[str, str] = {}
    for match in re.finditer(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", section, flags=re.MULTILINE):
        found[match[1]] = " ".join(match[2].split())
    return found
