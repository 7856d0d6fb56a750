"""Makes messages from pydantic's errors in a job file: the key, its value and the allowed values."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from tuner.domain.errors import did_you_mean
from tuner.domain.toml_file import KeyPath, spelled
from tuner.job.model import Job

_LONGEST_VALUE = 60
#: Maps the type of an error in pydantic to a text on the broken rule. Braces are replaced by values from the
#: context of the error.
_ALLOWED = {
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "finite_number": "must be a finite number",
    "float_type": "must be a number",
    "greater_than": "must be greater than {gt:,.12g}",
    "greater_than_equal": "must be at least {ge:,.12g}",
    "int_type": "must be a whole number",
    "less_than": "must be less than {lt:,.12g}",
    "less_than_equal": "must be at most {le:,.12g}",
    "missing": "is missing",
    "model_attributes_type": "must be a table",
    "model_type": "must be a table",
    "string_pattern_mismatch": "may contain letters, digits, '.', '_', '-'; starts with a letter or digit",
    "string_too_long": "must have at most {max_length} characters",
    "string_type": "must be a string",
    "too_long": "must have at most {max_length} values",
    "too_short": "must have at least {min_length} values",
    "tuple_type": "must be a list",
    "value_error": "{error}",
}
_NAMED_TABLES = {"optimizer": ["sgd", "adamw"], "schedule": ["constant", "step", "cosine"]}


def problems_of(error: ValidationError, data: Mapping[str, Any]) -> Iterator[str]:
    """Yields one sentence for each problem, in the order of the keys in the job model.

    Args:
        error: The errors that pydantic found.
        data: The content of the job file as nested dictionaries.
    """
    for details in error.errors(include_url=False):
        # Pydantic does not count invalid values in a list, so it may also report the list as too short.
        if details["type"] != "too_short" or len(details["input"]) < details["ctx"]["min_length"]:
            yield _problem(details, data)


def _problem(details: ErrorDetails, data: Mapping[str, Any]) -> str:
    kind, context = details["type"], details.get("ctx", {})
    path = _path_in(data, details)
    key = spelled(path)
    if kind == "extra_forbidden":
        return _unknown_key(path)
    if kind in ("union_tag_invalid", "union_tag_not_found"):
        names = _NAMED_TABLES.get(str(path[-1]), [])
        listed = ", ".join(map(repr, names))
        if kind == "union_tag_not_found":
            return f"{key}.name is missing: allowed is {listed}"
        return f"{key}.name = {context['tag']!r}: allowed is {listed}{_similar(context['tag'], names)}"
    if kind == "literal_error":
        names = context["expected"].replace("'", "").replace(" or ", ", ").split(", ")
        allowed = f"allowed is {context['expected']}{_similar(details['input'], names)}"
    elif kind in _ALLOWED:
        allowed = _ALLOWED[kind].format(**context)
    else:
        allowed = details["msg"][0].lower() + details["msg"][1:]
    if kind == "value_error" and (not key or allowed.startswith((f"{key} ", f"{key}."))):
        return allowed
    meaning = _description_of(path)
    hint = f" ({meaning})" if meaning else ""
    return (
        f"{key} {allowed}{hint}"
        if kind == "missing"
        else f"{key} = {_shown(details['input'])}: {allowed}{hint}"
    )


def _similar(given: Any, known: list[str]) -> str:
    return did_you_mean(str(given), known).removesuffix(".")


def _path_in(data: Mapping[str, Any], details: ErrorDetails) -> KeyPath:
    """Returns the location of an error in the job file, without the type names that pydantic adds."""
    path: list[str | int] = []
    at: Any = data
    for part in details["loc"]:
        if isinstance(at, Mapping):
            is_inside = part in at
        else:
            is_inside = isinstance(part, int) and isinstance(at, list | tuple) and part < len(at)
        if is_inside:
            path.append(part)
            at = at[part]
    if details["type"] == "missing":
        path.append(details["loc"][-1])
    return tuple(path)


def _unknown_key(path: KeyPath) -> str:
    table = path[:-1]
    keys = list(dict.fromkeys(key for model in _models_at(table) for key in model.model_fields))
    near = _nearest_key(path, keys)
    hint = f"; did you mean {near!r}?" if near else "."
    place = f"[{spelled(table)}]" if table else "the job file"
    allowed = f" Allowed in {place}: {', '.join(keys)}" if keys else ""
    if table == ("space",) and near is None:
        allowed += (
            ". Paceline tunes no other options: write a fixed value into workload.command, or into "
            "[workload.parameters] if workload.path names a class"
        )
    return f"unknown key {spelled(path)!r}{hint}{allowed}"


def _nearest_key(path: KeyPath, siblings: Sequence[str]) -> str | None:
    """Returns the allowed key that the user probably meant by an unknown key; None if there is none.

    It is a similar key in the same table if there is one; otherwise the same key in another table; otherwise
    the key whose path is most similar to that of the unknown key.

    Args:
        path: Path of the unknown key.
        siblings: Allowed keys of the table that contains the unknown key.
    """
    name = str(path[-1])
    if near := difflib.get_close_matches(name, siblings, n=1):
        return spelled((*path[:-1], near[0]))
    everywhere = list(_all_paths(Job, ()))
    if same_name := next((other for other in everywhere if other[-1] == name), None):
        return spelled(same_name)
    near = difflib.get_close_matches(spelled(path), map(spelled, everywhere), n=1, cutoff=0.8)
    return near[0] if near else None


def _models_at(path: KeyPath) -> list[type[BaseModel]]:
    """Returns the pydantic models of the table at a path.

    There are several models if the table can have several types, and no model if the path leads to a plain
    value.
    """
    models: list[type[BaseModel]] = [Job]
    for part in path:
        fields = [model.model_fields.get(str(part)) for model in models]
        models = [inner for field in fields if field is not None for inner in _models_in(field.annotation)]
    return models


def _description_of(path: KeyPath) -> str:
    """Returns the description of a key; the empty string if the key is unknown."""
    names = tuple(part for part in path if isinstance(part, str))
    if not names:
        return ""
    fields: list[FieldInfo | None] = [model.model_fields.get(names[-1]) for model in _models_at(names[:-1])]
    return next((field.description for field in fields if field and field.description), "")


def _all_paths(model: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, field in model.model_fields.items():
        yield (*above, key)
        for inner in _models_in(field.annotation):
            yield from _all_paths(inner, (*above, key))


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)


def _shown(value: Any) -> str:
    words = str(value).lower() if isinstance(value, bool) else repr(value)
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 3] + "..."
