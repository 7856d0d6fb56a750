"""Data types, limits and functions that all readers of past runs use."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from tuner.domain.metric_files import UnreadableError

#: Maximum size in bytes of a file with curves, and of a file with parameters.
MOST_BYTES, MOST_PARAMETER_BYTES = 256 * 2**20, 2**20
#: Maximum number of files in a folder, of runs of a format, and of rows of a run.
MOST_FILES, MOST_RUNS, MOST_ROWS = 100_000, 2_000, 1_000_000
#: Names of columns that readers add to the logged metrics: the step and the time in seconds of each logged
#: value.
STEP, TIME = "step", "time"
_LONGEST_TEXT = 200

Row = Mapping[str, float]
_Item = TypeVar("_Item")


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A run that another tool logged, with the tool's names of columns and parameters.

    Args:
        name: Name of the run in the tool that logged it.
        source: The file or folder from which the run was read.
        origin: The file or folder that the user specified; it is the source or contains the source.
        format: Name of the format, such as `tensorboard`.
        rows: Rows in the order of logging. A row maps the name of each column to a value that was logged at
            the same step.
        parameters: Maps the name of each parameter to its value as text. Names of nested parameters are
            joined with dots, such as `optimizer.lr`.
    """

    name: str
    source: Path
    format: str
    rows: tuple[Row, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def label(self) -> str:
        """The source and the name of the run, for messages and for `name_pattern`."""
        source = self.source.as_posix()
        return source if self.name in ("", source) else f"{source} {self.name}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or past run that was not imported, with the reason.

    Args:
        what: Path of the file, or label of the run.
        reason: Why it was not imported, with a remedy if there is one.
    """

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """The result of a reader of past runs.

    Args:
        runs: The runs that were read.
        left_out: The files and runs that could not be read, with reasons.
    """

    runs: tuple[FoundRun, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Found]) -> Found:
        """Combines the results of several readers of past runs."""
        parts = list(found)
        return cls(
            runs=tuple(run for part in parts for run in part.runs),
            left_out=tuple(one for part in parts for one in part.left_out),
        )


def check_size(path: Path, most: int = MOST_BYTES) -> None:
    """Checks that a file exists and has at most `most` bytes.

    Raises:
        UnreadableError: The file is too large or cannot be read.
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
    """Returns the first `MOST_RUNS` items; if there are more, adds a note on the others to `left_out`.

    Args:
        items: The runs, or data of one run each.
        what: Path or name of the omitted runs for the note.
        left_out: The list to which the note is added.
    """
    found = list(items)
    if len(found) > MOST_RUNS:
        reason = f"there are {len(found)} runs; only the first {MOST_RUNS} are read"
        left_out.append(LeftOut(what=what, reason=reason))
    return found[:MOST_RUNS]


def number(value: object) -> float | None:
    """Converts a value to a float (infinity if it is too large); None if it is not a number."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def flat_parameters(data: object) -> dict[str, str]:
    """Maps the dotted name of each parameter in nested tables to its value as text.

    - Lists and long texts are omitted.
    - A table `{"value": x, "desc": ...}`, as Weights & Biases writes it, is read as the value x.
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
    """Reads a JSON or YAML file with parameters; returns their values as texts, by dotted name.

    Raises:
        UnreadableError: The file is too large, is not valid, or contains no table.
    """
    check_size(path, MOST_PARAMETER_BYTES)
    kind = "JSON" if path.suffix == ".json" else "YAML"
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        data = json.loads(text) if kind == "JSON" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        raise UnreadableError(f"it is not valid {kind}: {str(error).splitlines()[0]}") from error
    if not isinstance(data, Mapping):
        raise UnreadableError("it contains no mapping of parameter names to values")
    return flat_parameters(data)


def _yaml(text: str) -> object:
    """Parses YAML text. Values with unknown tags become None."""
    import yaml

    # With anchors, a small file can expand to a huge table.
    if "&" in text and "*" in text:
        raise ValueError("it has YAML anchors (&name), which are not read: write each value in full")
    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("", lambda _loader, _suffix, _node: None)
    try:
        return yaml.load(text, Loader=loader)
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error


def parameters_nearby(path: Path, left_out: list[LeftOut], *, is_alone: bool) -> dict[str, str]:
    """Reads the parameters of runs from the JSON and YAML files that belong to a file with curves.

    These files have the same name as the file with curves. If the folder has only one file with curves,
    configuration files such as `config.yaml` in the folder belong to it too.

    Args:
        path: Path of the file with curves.
        left_out: The list to which parameter files that cannot be read are added.
        is_alone: Whether the folder has no other file with curves.
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


#: Names, without ending, of configuration files whose parameters belong to the only run in their folder.
_CONFIGURATIONS = ("config", "hparams", "params", "args", "hyperparameters")
