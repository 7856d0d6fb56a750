"""The keys a job file may contain, by path; source of suggestions and descriptions."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from tuner.job.model import Job

#: A place in a job file: keys, and positions in lists.
KeyPath = tuple[str | int, ...]


def spelled(path: Sequence[str | int]) -> str:
    """A path as people write it: `space.learning_rate.high`, `cluster.nodes[1]`."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def tables_at(path: KeyPath) -> list[type[BaseModel]]:
    """The tables allowed at a path: several where the file chooses among kinds, none for a value."""
    tables: list[type[BaseModel]] = [Job]
    for part in path:
        fields = (table.model_fields.get(str(part)) for table in tables)
        tables = [table for field in fields if field is not None for table in _tables_of(field)]
    return tables


def keys_at(path: KeyPath) -> list[str]:
    """The keys allowed in the table at a path, in the order of the documentation."""
    found = (key for table in tables_at(path) for key in table.model_fields)
    return list(dict.fromkeys(found))


def description_of(path: KeyPath) -> str:
    """The description of a key; empty if it is unknown."""
    names = tuple(part for part in path if isinstance(part, str))
    if not names:
        return ""
    fields = (table.model_fields.get(names[-1]) for table in tables_at(names[:-1]))
    return next((field.description for field in fields if field and field.description), "")


def nearest_key(path: KeyPath) -> str | None:
    """The path of the allowed key that an unknown one was probably meant to be, or None."""
    *above, last = path
    table = tuple(above)
    name = str(last)
    near = difflib.get_close_matches(name, keys_at(table), n=1)
    if near:
        return spelled((*table, near[0]))
    everywhere = list(_all_paths(Job, ()))
    same_name = [other for other in everywhere if other[-1] == name]
    if same_name:
        return spelled(same_name[0])
    near = difflib.get_close_matches(spelled(path), [spelled(other) for other in everywhere], n=1, cutoff=0.8)
    return near[0] if near else None


def _all_paths(table: type[BaseModel], above: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    for key, field in table.model_fields.items():
        path = (*above, key)
        yield path
        for inner in _tables_of(field):
            yield from _all_paths(inner, path)


def _tables_of(field: FieldInfo) -> list[type[BaseModel]]:
    return list(_tables_in(field.annotation))


def _tables_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _tables_in(argument)
