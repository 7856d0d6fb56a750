"""Reads TOML files that users write, within stated limits of size and nesting."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError

#: Size of the largest file that is read, in bytes.
_MOST_BYTES = 256 * 1024
#: Largest number of nested tables and lists.
_MOST_LEVELS = 32
#: Largest number of dots in a line. The time to parse a key grows with the square of the number of its parts.
_MOST_DOTS = 300
#: Integers in TOML have 64 bits.
_LEAST_INTEGER, _LARGEST_INTEGER = -(2**63), 2**63 - 1
_INTEGERS = "integers must be from -2^63 to 2^63 - 1. Write a smaller number"
#: Python refuses to convert longer texts to integers.
_LONG_INTEGER = re.compile(r"[0-9_]{4300,}")

#: The location of a value in a file: the keys of the tables and the indexes in lists that lead to the value,
#: from the outermost table on.
KeyPath = tuple[str | int, ...]


def read_toml(path: Path) -> dict[str, Any]:
    """Reads a TOML file that a user wrote.

    Raises:
        JobError: The file is not valid TOML, or exceeds a limit. The message names the file, the key or the
            line, and the limit.
        OSError: The file cannot be read.
    """
    text = _text(path)
    for number, line in enumerate(text.splitlines(), 1):
        if line.count(".") > _MOST_DOTS:
            raise JobError(
                f"{path}: line {number}, {_short(line)!r}: has {line.count('.'):,} dots, but at most "
                f"{_MOST_DOTS} are allowed. Shorten the key, or split the line"
            )
    too_deep = (
        f"lists and tables are nested too deeply: at most {_MOST_LEVELS} levels are allowed. Remove brackets"
    )
    try:
        data = tomllib.loads(text)
    except RecursionError as error:
        raise JobError(f"{path}: {too_deep}") from error
    except ValueError as error:
        if not isinstance(error, tomllib.TOMLDecodeError) and (long := _LONG_INTEGER.search(text)):
            number = text.count("\n", 0, long.start()) + 1
            key = text[: long.start()].rpartition("\n")[2].strip()[-60:]
            raise JobError(f"{path}: line {number}: {key} {_short(long[0])}: {_INTEGERS}") from error
        words = f"is not valid TOML: {error}. Strings need quotes, tables [brackets]"
        raise JobError(f"{path}: {words}") from error
    problems = [f"{spelled(key)} {words}" for key, words in _problems(data, too_deep, ())]
    if problems:
        more = f" (and {len(problems) - 1} more such problems)" if problems[1:] else ""
        raise JobError(f"{path}: {problems[0]}{more}")
    return data


def spelled(path: Sequence[str | int]) -> str:
    """Returns a path as users write it, such as `space.learning_rate.high` or `cluster.nodes[1]`."""
    words = ""
    for part in path:
        words += f"[{part}]" if isinstance(part, int) else f".{part}" if words else part
    return words


def _text(path: Path) -> str:
    if path.exists() and not path.is_file() and not path.is_dir():
        raise JobError(f"{path}: is a pipe, a socket or a device. Save the text in a file, and name that")
    with path.open("rb") as file:
        content = file.read(_MOST_BYTES + 1)
    if len(content) > _MOST_BYTES:
        raise JobError(
            f"{path}: is larger than {_MOST_BYTES // 1024} KiB, the size limit of TOML files. "
            "Name the right file, or remove keys"
        )
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise JobError(
            f"{path}: is not text in UTF-8: {error.reason} at byte {error.start}. Save it as UTF-8"
        ) from error


def _problems(value: Any, too_deep: str, above: KeyPath) -> Iterator[tuple[KeyPath, str]]:
    """Yields the path of each forbidden value, with a text on what is wrong."""
    if len(above) > _MOST_LEVELS:
        yield above[:4], f"... : {too_deep}"
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            if "\0" in key:
                yield (*above, key.replace("\0", "\\0")), "contains a NUL character; remove it"
            yield from _problems(inner, too_deep, (*above, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _problems(inner, too_deep, (*above, number))
    elif isinstance(value, str) and "\0" in value:
        yield above, "contains a NUL character; remove it"
    elif isinstance(value, int) and not _LEAST_INTEGER <= value <= _LARGEST_INTEGER:
        # Python converts integers of more than 4,300 digits to hexadecimal numbers only.
        shown = str(value) if value.bit_length() < 1_000 else hex(value)
        yield above, f"= {_short(shown)}: {_INTEGERS}"


def _short(text: str) -> str:
    return text if len(text) <= 40 else f"{text[:40]}..."
