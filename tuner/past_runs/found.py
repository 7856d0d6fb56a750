"""Data types, limits and helpers of the readers of past runs."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

#: Largest file of curves and largest file of parameters that are read (bytes).
MOST_BYTES, MOST_PARAMETER_BYTES = 256 * 2**20, 2**20
#: Largest numbers of files in a folder, of runs of a format, and of rows of a run that are read.
MOST_FILES, MOST_RUNS, MOST_ROWS = 100_000, 2_000, 1_000_000
#: Columns that readers add: the step that a tool stores with each value, and its time in seconds.
STEP, TIME = "step", "time"
_LONGEST_TEXT = 200

Row = Mapping[str, float]
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A run as its tool stored it, with the original names of columns and parameters.

    Args:
        name: Name of the run in its tool.
        source: Its file or folder.
        origin: The file or folder that the user named, which contains the source.
        format: Name of the format.
        rows: Values that were logged together, by column, in the order of logging.
        parameters: Parameters as text, by name; names of nested parameters are joined by dots.
    """

    name: str
    source: Path
    format: str
    rows: tuple[Row, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def label(self) -> str:
        """The source and name of the run, for messages and patterns."""
        source = self.source.as_posix()
        return source if self.name in ("", source) else f"{source} {self.name}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or run that was not imported.

    Args:
        what: The file or run.
        reason: The reason, and a remedy if there is one.
    """

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a reader.

    Args:
        runs: The runs.
        left_out: Files and runs that could not be read.
    """

    runs: tuple[FoundRun, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Found]) -> Found:
        """Join several results."""
        parts = list(found)
        return cls(
            runs=tuple(run for part in parts for run in part.runs),
            left_out=tuple(one for part in parts for one in part.left_out),
        )


class UnreadableError(Exception):
    """A file cannot be read; the message is the reason."""


def check_size(path: Path, most: int = MOST_BYTES) -> None:
    """Check that a file exists and is not too large.

    Raises:
        UnreadableError: It is too large or cannot be read.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise UnreadableError(f"it cannot be read: {error.strerror}") from error
    if size > most:
        raise UnreadableError(
            f"it has {size / 2**20:.0f} MiB; at most {most / 2**20:.0f} MiB are read. Import a shorter export"
        )


def limited(items: Iterable[_Item], what: str, left_out: list[LeftOut]) -> list[_Item]:
    """The first `MOST_RUNS` items; if there are more, `left_out` gets a note about `what`."""
    found = list(items)
    if len(found) > MOST_RUNS:
        reason = f"there are {len(found)} runs; only the first {MOST_RUNS} are read"
        left_out.append(LeftOut(what=what, reason=reason))
    return found[:MOST_RUNS]


def number(value: object) -> float | None:
    """A value as a float, infinite if it is too large; None if it is not a number."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def flat_parameters(data: object) -> dict[str, str]:
    """Parameters of nested tables as text, by dotted name; lists and long texts are left out.

    An entry `{"value": x, "desc": ...}`, as Weights & Biases writes, counts as x.
    """
    found: dict[str, str] = {}
    waiting: list[tuple[str, Any]] = [("", data)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, Mapping):
            if path and "value" in value and set(value) <= {"value", "desc"}:
                waiting.append((path, value["value"]))
                continue
            for key, inner in value.items():
                if not str(key).startswith("_wandb"):
                    waiting.append((f"{path}.{key}" if path else str(key), inner))
        elif isinstance(value, str | int | float | bool) and path:
            with contextlib.suppress(ValueError):  # Python does not convert very long integers
                if len(text := str(value)) <= _LONGEST_TEXT:
                    found[path] = text
    return dict(sorted(found.items()))


def read_parameters(path: Path) -> dict[str, str]:
    """The parameters in a JSON or YAML file.

    Raises:
        UnreadableError: The file is too large, not valid, or contains no table.
    """
    check_size(path, MOST_PARAMETER_BYTES)
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        data = json.loads(text) if kind == "JSON" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"it is not valid {kind}: {str(error).splitlines()[0]}") from error
    if not isinstance(data, Mapping):
        raise UnreadableError("it contains no table of parameters")
    return flat_parameters(data)


def _yaml(text: str) -> object:
    """The data in YAML text; unknown tags become None."""
    import yaml

    # With anchors, a small file can describe a huge table.
    if "&" in text and "*" in text:
        raise ValueError("anchors are not read")
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("", lambda _loader, _suffix, _node: None)
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error


def parameters_nearby(path: Path, left_out: list[LeftOut], *, is_alone: bool) -> dict[str, str]:
    """Parameters from the JSON and YAML files that belong to a file of curves.

    These files have the same name, or are the configuration file of the folder.

    Args:
        path: The file of curves.
        left_out: Gets the parameter files that cannot be read.
        is_alone: Whether the folder has no other file of curves.
    """
    names = [f"{path.stem}{suffix}" for suffix in (".json", ".yaml", ".yml", ".config.json", ".config.yaml")]
    if is_alone:
        names += [f"{stem}{suffix}" for stem in _CONFIGURATIONS for suffix in (".json", ".yaml", ".yml")]
    found: dict[str, str] = {}
    for near in (path.parent / name for name in names):
        if near != path and near.is_file():
            try:
                found = {**read_parameters(near), **found}
            except UnreadableError as error:
                left_out.append(LeftOut(what=str(near), reason=str(error)))
    return found


#: Names of files with the parameters of the only run in their folder.
_CONFIGURATIONS = ("config", "hparams", "params", "args", "hyperparameters")
