"""Random mutations of bytes, of lines and of tables, and a writer for mutated TOML."""

from __future__ import annotations

import copy
import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

#: Values that a key may be given in place of its own.
ODD_VALUES: tuple[Any, ...] = (
    0,
    -1,
    1,
    2**31,
    2**63,
    10**400,
    -(10**19),
    0.5,
    -0.0,
    1e-320,
    1e308,
    math.nan,
    math.inf,
    -math.inf,
    True,
    False,
    "",
    " ",
    "nan",
    "1",
    "90s",
    "0s",
    "1e400s",
    "-5m",
    "∞",
    "ﬀ\u202e\u0301日本",
    "\x00",
    "../../..",
    "{checkpoint}",
    "{0.__class__}",
    "a" * 20_000,
    [],
    {},
    [[]],
    [1, "two", 3.0],
    [0],
    [-1],
    [1, 1],
    [math.nan],
    list(range(1, 2_000)),
    {"low": 1, "high": 2},
    {"low": 2, "high": 1},
    {"low": 0, "high": math.inf},
    {"a": {"b": {"c": 1}}},
)

_ODD_BYTES = (
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xc3",
        b"\r",
        b"\n",
        b'"',
        b"'",
        b"[",
        b"]",
        b"=",
        b"{",
        b"}",
        b"\\",
        b",",
        b"#",
    ),
    *(b"nan", b"1e999", b"9" * 5_000, b"[" * 3_000, b"\xf0\x9f\x92\xa5", b"\x1b[2J", b"\xe2\x80\xa8"),
)

Path = tuple[str, ...]


def mutated_bytes(data: bytes, rng: random.Random) -> bytes:
    """Bytes with a few random changes: cut, flipped, inserted, or with lines lost, doubled and swapped."""
    for _ in range(rng.randint(1, 3)):
        start = rng.randrange(len(data) + 1)
        end = min(start + rng.choice((1, 4, 32, 512)), len(data))
        lines = data.split(b"\n")
        line = rng.randrange(len(lines))
        kind = rng.randrange(8)
        if kind == 0:
            data = data[:start]
        elif kind == 1:
            data = data[:start] + data[end:]
        elif kind == 2:
            data = data[:start] + rng.choice(_ODD_BYTES) + data[start:]
        elif kind == 3:
            data = data[:start] + rng.randbytes(end - start) + data[end:]
        elif kind == 4:
            data = b"\n".join([*lines[:line], *lines[line + 1 :]])
        elif kind == 5:
            data = b"\n".join([*lines[:line], lines[line], *lines[line:]])
        elif kind == 6:
            other = rng.randrange(len(lines))
            lines[line], lines[other] = lines[other], lines[line]
            data = b"\n".join(lines)
        else:
            data = data[end:] + data[:start]
    return data


def paths_of(table: Mapping[str, Any], above: Path = ()) -> Iterator[Path]:
    """Every key of a table and of the tables in it."""
    for key, value in table.items():
        yield (*above, key)
        if isinstance(value, Mapping):
            yield from paths_of(value, (*above, key))


def value_at(table: Mapping[str, Any], path: Path) -> Any:
    """What a table holds at a path."""
    value: Any = table
    for key in path:
        value = value[key]
    return value


def mutated_table(table: Mapping[str, Any], rng: random.Random) -> tuple[dict[str, Any], str, Path]:
    """A copy with one change; what was done, and to which key."""
    changed = copy.deepcopy(dict(table))
    path = rng.choice(list(paths_of(table)))
    inside = value_at(changed, path[:-1])
    kind = rng.choice(("set", "set", "set", "delete", "rename", "add", "retype", "swap"))
    if kind == "set":
        inside[path[-1]] = rng.choice(ODD_VALUES)
    elif kind == "delete":
        del inside[path[-1]]
    elif kind == "rename":
        name = path[-1] + rng.choice(("_", "s", "x", "\u00e9"))
        inside[name] = inside.pop(path[-1])
        path = (*path[:-1], name)
    elif kind == "add":
        name = rng.choice(("nonsense", "seed_", "Nodes", "\u00e9"))
        inside[name] = rng.choice(ODD_VALUES)
        path = (*path[:-1], name)
    elif kind == "retype":
        inside[path[-1]] = _retyped(inside[path[-1]], rng)
    else:
        inside[path[-1]] = copy.deepcopy(value_at(table, rng.choice(list(paths_of(table)))))
    return changed, kind, path


def _retyped(value: Any, rng: random.Random) -> Any:
    if isinstance(value, str):
        return rng.choice(([value], {"name": value}, 7, True))
    if isinstance(value, bool | int | float):
        return rng.choice((str(value), [value], {"value": value}, -value, value * 1_000_000, value + 0.5))
    return rng.choice((str(value), 3, True))


def toml_text(table: Mapping[str, Any]) -> str:
    """TOML of a table; tables inside tables are written in their line."""
    plain = [f"{_key(key)} = {_value(value)}" for key, value in table.items() if not _is_table(value)]
    for key, value in table.items():
        if _is_table(value):
            plain += [f"[{_key(key)}]", *(f"{_key(inner)} = {_value(v)}" for inner, v in value.items())]
    return "\n".join(plain) + "\n"


def _is_table(value: Any) -> bool:
    return isinstance(value, Mapping)


def _key(key: str) -> str:
    return json.dumps(key, ensure_ascii=False)


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_key(key)} = {_value(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return {"nan": "nan", "inf": "inf", "-inf": "-inf"}.get(repr(value), repr(value))
    if isinstance(value, int):
        return str(value)
    return json.dumps(str(value)).replace("\x7f", "\\u007f")
