"""Configurations: points of a search space, as hashable mappings from axis names to values."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

AxisValue = str | int | float | bool

#: Axes that Paceline itself interprets, in display order.
STANDARD_AXES = ("nodes", "machine", "batch_size", "learning_rate", "strategy")

_POSITIONS = {axis: position for position, axis in enumerate(STANDARD_AXES)}
_SIGNIFICANT_DIGITS = 6
_KEYS = json.JSONEncoder(separators=(",", ":"), sort_keys=True)


def _canonical(axis: str, value: AxisValue) -> AxisValue:
    if isinstance(value, bool | str | int):
        return value
    if isinstance(value, float):
        rounded = float(f"{value:.{_SIGNIFICANT_DIGITS}g}")
        if rounded != rounded or rounded in (float("inf"), float("-inf")):
            raise ValueError(f"axis {axis!r} has the value {value!r}; numbers must be finite")
        return rounded
    raise TypeError(f"axis {axis!r} has the value {value!r}; allowed types are str, int, float and bool")


def _axis_order(axis: str) -> tuple[int, str]:
    return _POSITIONS.get(axis, len(STANDARD_AXES)), axis


class Configuration(Mapping[str, AxisValue]):
    """The settings of one training run: nodes, batch size, learning rate, strategy and its parameters.

    Two configurations are equal if they have the same axes and values, in any order. Floats are rounded to
    six significant digits, so that JSON and databases store a configuration unchanged.

    Args:
        axes: Maps axis names, such as `batch_size`, to values. Numbers must be finite.
        more: Further axes and their values as keyword arguments; they override `axes`.

    Raises:
        ValueError: A number is not finite.
        TypeError: A value has a type that is not allowed.
    """

    __slots__ = ("_axes", "_key")

    def __init__(self, axes: Mapping[str, AxisValue] | None = None, **more: AxisValue) -> None:
        merged = {**(axes or {}), **more}
        self._axes = {axis: _canonical(axis, merged[axis]) for axis in sorted(merged, key=_axis_order)}
        self._key = _KEYS.encode(self._axes)

    @property
    def key(self) -> str:
        """The configuration as JSON text; equal configurations have equal keys."""
        return self._key

    @classmethod
    def from_key(cls, key: str) -> Configuration:
        """Creates the configuration that has this `key`."""
        return cls(json.loads(key))

    @property
    def nodes(self) -> int:
        """Number of nodes, at least 1."""
        return int(self._axes.get("nodes", 1))

    @property
    def batch_size(self) -> int:
        """Global batch size: samples per optimizer step over all ranks; 1 if the space has no such axis."""
        return int(self._axes.get("batch_size", 1))

    @property
    def learning_rate(self) -> float:
        """Peak learning rate of the schedule; 1 if the space has no learning-rate axis."""
        return float(self._axes.get("learning_rate", 1.0))

    @property
    def strategy(self) -> str:
        """Name of the strategy; `all_reduce` if the space has no strategy axis."""
        return str(self._axes.get("strategy", "all_reduce"))

    def replaced(self, **changes: AxisValue) -> Configuration:
        """Returns a copy with some axes changed or added."""
        return Configuration({**self._axes, **changes})

    def without(self, *axes: str) -> Configuration:
        """Returns a copy without the given axes."""
        # Skips `__init__`, because the remaining values are rounded and ordered already.
        found = object.__new__(Configuration)
        found._axes = {a: v for a, v in self._axes.items() if a not in axes}
        found._key = _KEYS.encode(found._axes)
        return found

    def as_dict(self) -> dict[str, Any]:
        """Returns a dictionary from axis names to values, in display order."""
        return dict(self._axes)

    def __getitem__(self, axis: str) -> AxisValue:
        return self._axes[axis]

    def __iter__(self) -> Iterator[str]:
        return iter(self._axes)

    def __len__(self) -> int:
        return len(self._axes)

    def __hash__(self) -> int:
        return hash(self._key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Configuration) and self._key == other._key

    def __lt__(self, other: Configuration) -> bool:
        return self._key < other._key

    def __repr__(self) -> str:
        return f"Configuration({self})"

    def __str__(self) -> str:
        return " ".join(f"{axis}={value}" for axis, value in self._axes.items())
