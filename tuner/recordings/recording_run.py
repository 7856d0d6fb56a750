"""One measured configuration of a recording, read from its line."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from search_spaces import Configuration
from tuner.domain.cluster import Machine
from tuner.recordings.recording import Array, RecordedRun
from tuner.recordings.recording_line import Line

_KEYS = (
    "configuration",
    "data_fraction",
    "step_seconds",
    "seconds_std",
    "value_std",
    "end",
    "curve",
)


def run_of_line(line: Line, columns: Sequence[int], machines: Mapping[str, Machine]) -> RecordedRun:
    """The measured configuration that a line holds.

    Args:
        line: The line.
        columns: Where a row of a curve holds seconds, step and value.
        machines: The header's.

    Raises:
        JobError: Something in it is not as the format has it.
    """
    line.refuse_misspelled(_KEYS)
    return RecordedRun(
        configuration=_configuration(line, machines),
        data_fraction=line.number("data_fraction", above=0.0, at_most=1.0, default=1.0),
        step_seconds=line.number("step_seconds", above=0.0),
        curve=_curve(line, columns),
        end=line.text("end", default="") or None,
        seconds_std=line.optional_number("seconds_std", at_least=0.0),
        value_std=line.optional_number("value_std", at_least=0.0),
    )


def _configuration(line: Line, machines: Mapping[str, Machine]) -> Configuration:
    inner = line.inside("configuration", line.value("configuration"))
    axes: dict[str, Any] = dict(inner.data)
    if not axes:
        raise line.problem("configuration", "must name at least one axis")
    for axis in ("nodes", "batch_size"):
        if axis in axes:
            axes[axis] = inner.count(axis, at_least=1)
    if "learning_rate" in axes:
        axes["learning_rate"] = inner.number("learning_rate", above=0.0)
    if "strategy" in axes:
        axes["strategy"] = inner.text("strategy")
    for axis, value in axes.items():
        if not isinstance(value, str | int | float | bool):
            raise inner.problem(axis, "must be a string, a number, true or false")
    if "machine" in axes and machines:
        name = inner.text("machine")
        if name not in machines:
            near = difflib.get_close_matches(name, machines, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            raise inner.problem("machine", f"the header's machines are {', '.join(machines)}{hint}")
    elif len(machines) > 1:
        raise inner.problem("machine", f"is missing: the header prices {', '.join(machines)}")
    try:
        return Configuration(axes)
    except ValueError as error:
        raise line.problem("configuration", f"{error}") from error


def _curve(line: Line, columns: Sequence[int]) -> Array:
    rows = line.value("curve")
    if not isinstance(rows, list) or not all(isinstance(row, list) for row in rows):
        raise line.problem("curve", "must be a list of rows")
    if not rows:
        return np.zeros((0, 3))
    try:
        curve = np.array([[row[i] for i in columns] for row in rows], dtype=float)
    except (IndexError, TypeError, ValueError, OverflowError):
        raise line.problem("curve", "every row must hold a number for each column of the header") from None
    if not np.isfinite(curve).all():
        raise line.problem(
            "curve", "must hold finite numbers; leave such scorings out and let `end` say why it stops"
        )
    if (curve[0, :2] < 0).any() or (np.diff(curve[:, 0]) < 0).any() or (np.diff(curve[:, 1]) <= 0).any():
        raise line.problem("curve", "seconds must not go back, and every scoring needs a later step")
    return curve
