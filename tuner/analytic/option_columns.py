"""Columns for axes that no law knows: a script's own options and machine types."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces import STRATEGIES, Configuration
from tuner.analytic.laws import Array
from tuner.analytic.regression import Parameter

#: Prior spread of the effect of a value of an option that has no order, and of an e-fold of one that has:
#: time grows with the number of layers, and with the square of their width.
_VALUE_SD, _FOLD_SD = 0.5, 1.0
#: Length scales of what an effect leaves out: values without an order have a correlation of 0.6.
_VALUE_LENGTH, _FOLD_LENGTH = 1.0 / math.sqrt(-math.log(0.6)), 1.4
#: Fewer different numbers have no order that could be learnt.
_FEWEST_ORDERED = 3
_KNOWN = {
    "nodes",
    "batch_size",
    "learning_rate",
    "strategy",
    *(knob for traits in STRATEGIES.values() for knob in traits.knobs),
}


@dataclass(frozen=True, kw_only=True)
class OptionColumns:
    """Encodes the axes that laws do not know; each column has one effect on a logarithm.

    Args:
        ordered: Axes of positive numbers, each with the middle of its logarithms.
        values: The other axes, each with its different values.
    """

    ordered: tuple[tuple[str, float], ...] = ()
    values: tuple[tuple[str, tuple[str, ...]], ...] = ()

    def __len__(self) -> int:
        return len(self.ordered) + sum(len(values) for _, values in self.values)

    def of(self, configurations: Sequence[Configuration]) -> Array:
        """Logarithms around the middle, and indicators less their mean, `(num, num_columns)`."""
        columns = [
            [math.log(float(c[axis])) - middle if axis in c else 0.0 for c in configurations]
            for axis, middle in self.ordered
        ]
        columns += [
            [float(str(c.get(axis)) == value) - 1.0 / len(values) for c in configurations]
            for axis, values in self.values
            for value in values
        ]
        return np.array(columns, dtype=float).reshape(len(self), len(configurations)).T

    def effects(self, quantity: str) -> tuple[Parameter, ...]:
        """The unknown effect of each column on the logarithm of a quantity."""
        named = [(axis, _FOLD_SD) for axis, _ in self.ordered]
        named += [(f"{axis}={value}", _VALUE_SD) for axis, values in self.values for value in values]
        return tuple(Parameter(name=f"log {quantity} by {name}", mean=0.0, sd=sd) for name, sd in named)

    @property
    def lengths(self) -> tuple[float, ...]:
        """Length scale of each column."""
        num_values = len(self) - len(self.ordered)
        return (_FOLD_LENGTH,) * len(self.ordered) + (_VALUE_LENGTH,) * num_values


NO_OPTIONS = OptionColumns()


def option_columns(configurations: Sequence[Configuration]) -> OptionColumns:
    """The columns of all axes that differ between configurations and that no law knows.

    Args:
        configurations: All that were run or will be asked about.
    """
    axes = dict.fromkeys(axis for c in configurations for axis in c if axis not in _KNOWN)
    ordered: list[tuple[str, float]] = []
    values: list[tuple[str, tuple[str, ...]]] = []
    for axis in axes:
        found = {c.get(axis) for c in configurations}
        numbers = [float(v) for v in found if isinstance(v, int | float) and not isinstance(v, bool)]
        if len(numbers) == len(found) >= _FEWEST_ORDERED and min(numbers) > 0:
            ordered.append((axis, 0.5 * math.log(min(numbers) * max(numbers))))
        elif len(found) > 1:
            values.append((axis, tuple(sorted(str(v) for v in found))))
    return OptionColumns(ordered=tuple(ordered), values=tuple(values))
