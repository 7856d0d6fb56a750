"""Turns validation errors of a job into plain messages: the key, its value, and what is allowed."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from tuner.job.known_keys import KeyPath, description_of, keys_at, nearest_key, spelled

_LONGEST_VALUE = 60

#: pydantic's kind of error to what is allowed, filled in from the error's context.
_ALLOWED = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "missing": "is missing",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "string_type": "must be a string",
    "too_long": "must hold at most {max_length} values",
    "too_short": "must hold at least {min_length} values",
    "tuple_type": "must be a list",
}


def problems_of(error: ValidationError, data: Mapping[str, Any]) -> list[str]:
    """One sentence for each thing that is wrong, in the order of the job file's documentation.

    Args:
        error: What pydantic found.
        data: What it was given.
    """
    return [_problem(details, data) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, data: Mapping[str, Any]) -> str:
    kind = details["type"]
    path = _path_in(data, details)
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        return _wrong_name(details, path)
    key = spelled(path)
    allowed = _allowed(details)
    if kind == "value_error" and (not key or _speaks_of(allowed, key)):
        return allowed
    meaning = description_of(path)
    hint = f" ({meaning})" if meaning else ""
    if kind == "missing":
        return f"{key} is missing{hint}"
    return f"{key} = {_given(details['input'])}: {allowed}{hint}"


def _path_in(data: Mapping[str, Any], details: ErrorDetails) -> KeyPath:
    """The error's place as the file spells it: names of kinds that pydantic puts between are left out."""
    path: list[str | int] = []
    at: Any = data
    location = details["loc"]
    for position, part in enumerate(location):
        is_last = position == len(location) - 1
        inside = part in at if isinstance(at, Mapping) else _is_position(part, at)
        if inside:
            path.append(part)
            at = at[part]
        elif is_last and details["type"] == "missing":
            path.append(part)
    return tuple(path)


def _is_position(part: str | int, values: Any) -> bool:
    return isinstance(part, int) and isinstance(values, list | tuple) and part < len(values)


def _speaks_of(message: str, key: str) -> bool:
    return message.startswith((f"{key} ", f"{key}."))


def _unknown_key(path: KeyPath) -> str:
    near = nearest_key(path)
    hint = f"; did you mean {near!r}?" if near else ""
    table = path[:-1]
    place = f"[{spelled(table)}]" if table else "the job file"
    keys = keys_at(table)
    allowed = f" Allowed in {place}: {', '.join(keys)}" if keys else ""
    more = ""
    if table == ("space",) and near is None:
        more = (
            ". Paceline tunes no other options: write a fixed value into workload.command, or into "
            "[workload.parameters] if workload.path names a class"
        )
    return f"unknown key {spelled(path)!r}{hint or '.'}{allowed}{more}"


def _wrong_name(details: ErrorDetails, path: KeyPath) -> str:
    kinds = {"optimizer": ["sgd", "adamw"], "schedule": ["constant", "step", "cosine"]}
    key = f"{spelled(path)}.name"
    allowed = kinds.get(str(path[-1]), [])
    listed = ", ".join(repr(name) for name in allowed)
    if details["type"] == "union_tag_not_found":
        return f"{key} is missing: allowed is {listed}"
    given = str(details["ctx"]["tag"])
    return f"{key} = {given!r}: allowed is {listed}{_did_you_mean(given, allowed)}"


def _allowed(details: ErrorDetails) -> str:
    context = details.get("ctx", {})
    kind = details["type"]
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = str(context["expected"])
        names = expected.replace("'", "").replace(" or ", ", ").split(", ")
        return f"allowed is {expected}{_did_you_mean(str(details['input']), names)}"
    if kind == "string_pattern_mismatch":
        return "may hold letters, digits, '.', '_' and '-', and begins with a letter or digit"
    if kind in _ALLOWED:
        return _ALLOWED[kind].format(**context)
    message = details["msg"]
    return message[0].lower() + message[1:]


def _did_you_mean(given: str, allowed: list[str]) -> str:
    near = difflib.get_close_matches(given, allowed, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def _given(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    words = repr(value)
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 3] + "..."
