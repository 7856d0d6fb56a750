"""One line of a recording, with what is wrong in it told by file, line number and key."""

from __future__ import annotations

import difflib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tuner.domain.errors import JobError

_LONGEST_VALUE = 60
_ABSENT = object()


@dataclass(frozen=True, kw_only=True)
class Line:
    """A JSON object of a line, or one inside it.

    Args:
        path: The file.
        line_number: The line, from 1.
        data: The object.
        above: Key of the object within the line; empty for the line itself.
    """

    path: Path
    line_number: int
    data: Mapping[str, Any]
    above: str = ""

    @classmethod
    def parse(cls, path: Path, line_number: int, text: str) -> Line:
        """The line as an object.

        Raises:
            JobError: It is not one.
        """
        try:
            data = json.loads(text)
        except ValueError as error:
            raise JobError(
                f"{path}, line {line_number}: is not JSON: {error}; each line is one object"
            ) from None
        except RecursionError:
            raise JobError(
                f"{path}, line {line_number}: is nested too deeply; each line is one object"
            ) from None
        if not isinstance(data, dict):
            raise JobError(f"{path}, line {line_number}: must be a JSON object, not {_spelled(data)}")
        return cls(path=path, line_number=line_number, data=data)

    def inside(self, key: str, data: Any) -> Line:
        """The object that a key holds.

        Raises:
            JobError: It holds none.
        """
        if not isinstance(data, dict):
            raise self.problem(key, f"must be an object, not {_spelled(data)}")
        return Line(path=self.path, line_number=self.line_number, data=data, above=self._key(key))

    def problem(self, key: str, words: str) -> JobError:
        """The error for a key."""
        return JobError(f"{self.path}, line {self.line_number}: {self._key(key)}: {words}")

    def refuse_misspelled(self, known: Sequence[str]) -> None:
        """Sees that no key looks like a known one that is absent.

        Raises:
            JobError: One does.
        """
        absent = [key for key in known if key not in self.data]
        for key in self.data:
            near = difflib.get_close_matches(key, absent, n=1, cutoff=0.8) if key not in known else []
            if near:
                raise self.problem(key, f"is unknown; did you mean {near[0]!r}? Known are {', '.join(known)}")

    def value(self, key: str, default: Any = _ABSENT) -> Any:
        """What a key holds.

        Raises:
            JobError: It is absent, and there is no default.
        """
        if key in self.data:
            return self.data[key]
        if default is _ABSENT:
            raise self.problem(key, "is missing; every line of its kind states it")
        return default

    def text(self, key: str, default: Any = _ABSENT) -> str:
        """A string."""
        value = self.value(key, default)
        if not isinstance(value, str):
            raise self.problem(key, f"must be a string, not {_spelled(value)}")
        return value

    def one_of(self, key: str, allowed: Sequence[str], default: Any = _ABSENT) -> str:
        """One of some words."""
        value = self.value(key, default)
        if value not in allowed:
            listed = " or ".join(repr(word) for word in allowed)
            raise self.problem(key, f"must be {listed}, not {_spelled(value)}")
        return str(value)

    def count(self, key: str, *, at_least: int, default: Any = _ABSENT) -> int:
        """A whole number."""
        value = self.value(key, default)
        if not _is_finite(value) or not float(value).is_integer() or value < at_least:
            raise self.problem(key, f"must be a whole number from {at_least}, not {_spelled(value)}")
        return int(value)

    def optional_number(self, key: str, *, at_least: float) -> float | None:
        """A number, or None where the key is absent."""
        return self.number(key, at_least=at_least) if key in self.data else None

    def number(
        self,
        key: str,
        *,
        at_least: float = -math.inf,
        above: float = -math.inf,
        at_most: float = math.inf,
        default: Any = _ABSENT,
    ) -> float:
        """A finite number within bounds."""
        value = self.value(key, default)
        if not _is_finite(value) or value < at_least or value <= above or value > at_most:
            bounds = [
                f"{words} {bound:g}"
                for words, bound in (("at least", at_least), ("above", above), ("at most", at_most))
                if math.isfinite(bound)
            ]
            allowed = f" {' and '.join(bounds)}" if bounds else ""
            raise self.problem(key, f"must be a finite number{allowed}, not {_spelled(value)}")
        return float(value)

    def _key(self, key: str) -> str:
        return f"{self.above}.{key}" if self.above else key


def _is_finite(value: Any) -> bool:
    """Whether it is a number that a float can hold."""
    try:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:
        return False


def _spelled(value: Any) -> str:
    words = json.dumps(value, default=str)
    return words if len(words) <= _LONGEST_VALUE else words[: _LONGEST_VALUE - 3] + "..."
