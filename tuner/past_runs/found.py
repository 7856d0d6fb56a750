"""Runs as a reader finds them, before anything is mapped to the job; and limits of what is read."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

#: A file larger than this is left out (bytes), and so is a parameter file larger than the other.
MOST_BYTES, MOST_PARAMETER_BYTES = 256 * 2**20, 2**20
#: Files in a folder and runs of a format that are read at most, and rows of a run.
MOST_FILES, MOST_RUNS, MOST_ROWS = 100_000, 2_000, 1_000_000
#: Columns that readers add: the step that a tool stores with each value, and when it was written (seconds).
STEP, TIME = "step", "time"
_LONGEST_TEXT = 200

Row = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class FoundRun:
    """A run with its columns under their own names.

    Args:
        name: The run, in the words of its tool.
        source: Its file or folder.
        origin: The file or folder that was named for the import, in which the source lies.
        format: The name of the format.
        rows: What was logged at once, by column, in the order in which it was logged.
        parameters: Parameters as text, by name; of nested ones the path, joined by dots.
    """

    name: str
    source: Path
    format: str
    rows: tuple[Row, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""

    @property
    def label(self) -> str:
        """The run for messages and for patterns: its source with its name."""
        source = self.source.as_posix()
        return source if self.name in ("", source) else f"{source} {self.name}"


@dataclass(frozen=True, kw_only=True)
class LeftOut:
    """A file or a run that was not imported.

    Args:
        what: The file or the run.
        reason: Why, and what to do about it.
    """

    what: str
    reason: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What a reader found.

    Args:
        runs: The runs.
        left_out: What could not be read.
    """

    runs: tuple[FoundRun, ...] = ()
    left_out: tuple[LeftOut, ...] = ()

    @classmethod
    def of(cls, found: Iterable[Found]) -> Found:
        """All of several findings."""
        parts = list(found)
        return cls(
            runs=tuple(run for part in parts for run in part.runs),
            left_out=tuple(one for part in parts for one in part.left_out),
        )


def too_large(path: Path, most: int = MOST_BYTES) -> str | None:
    """Why a file is not read, if it is too large or cannot be read; None if it may be."""
    try:
        size = path.stat().st_size
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    if size > most:
        return (
            f"it has {size / 2**20:.0f} MiB; at most {most / 2**20:.0f} MiB are read. Import a shorter export"
        )
    return None


def number(value: object) -> float | None:
    """A value as a number; None if it is none. A number too large for a float is infinite."""
    if isinstance(value, bool) or value is None:
        return None
    try:
        return float(value)  # type: ignore[arg-type]
    except OverflowError:
        return math.inf
    except (TypeError, ValueError):
        return None


def flat_parameters(data: object) -> dict[str, str]:
    """Parameters of nested tables by their path, as text; lists and long texts are left out.

    Entries of the form `{"value": x, "desc": ...}`, as Weights & Biases writes them, count as x.
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
            text = _text(value)
            if text is not None and len(text) <= _LONGEST_TEXT:
                found[path] = text
    return dict(sorted(found.items()))


def _text(value: str | float | bool) -> str | None:
    try:
        return str(value)
    except ValueError:  # Python writes no whole number of more than some thousand digits
        return None


def read_parameters(path: Path) -> dict[str, str] | str:
    """The parameters of a JSON or YAML file; a sentence that says why, if it has none."""
    reason = too_large(path, MOST_PARAMETER_BYTES)
    if reason is not None:
        return reason
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
        data = json.loads(text) if path.suffix == ".json" else _yaml(text)
    except (OSError, ValueError, RecursionError) as error:
        kind = "JSON" if path.suffix == ".json" else "YAML"
        return f"it is not valid {kind}: {str(error).splitlines()[0]}"
    if not isinstance(data, Mapping):
        return "it holds no table of parameters"
    return flat_parameters(data)


def _yaml(text: str) -> object:
    import yaml

    # Anchors let a small file describe a huge table.
    if "&" in text and "*" in text:
        raise ValueError("anchors are not read")
    try:
        return yaml.load(text, Loader=_plain_loader())
    except (yaml.YAMLError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from error


def _plain_loader() -> Any:
    """PyYAML's loader of plain data that takes unknown tags for nothing."""
    import yaml

    loader: Any = type("Loader", (yaml.SafeLoader,), {})
    loader.add_multi_constructor("", lambda _loader, _suffix, _node: None)
    return loader


def parameters_nearby(path: Path, *, alone: bool) -> tuple[dict[str, str], list[LeftOut]]:
    """Parameters of the JSON and YAML files that belong to a file of curves.

    They have its name, or are the configuration file of its folder.

    Args:
        path: The file of curves.
        alone: Whether no other file of curves lies in its folder.
    """
    names = [f"{path.stem}{suffix}" for suffix in (".json", ".yaml", ".yml", ".config.json", ".config.yaml")]
    if alone:
        names += [f"{stem}{suffix}" for stem in _CONFIGURATIONS for suffix in (".json", ".yaml", ".yml")]
    found: dict[str, str] = {}
    left_out: list[LeftOut] = []
    for name in names:
        near = path.parent / name
        if near == path or not near.is_file():
            continue
        read = read_parameters(near)
        if isinstance(read, str):
            left_out.append(LeftOut(what=str(near), reason=read))
        else:
            found = {**read, **found}
    return found, left_out


#: Names of files that hold the parameters of the only run in their folder.
_CONFIGURATIONS = ("config", "hparams", "params", "args", "hyperparameters")
