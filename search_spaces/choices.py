"""Choices: sets of allowed values for one axis of a search space."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.configuration import AxisValue


class Choice(ABC):
    """The set of allowed values of one axis.

    Samplers draw values with `sample`. The model-driven search considers only `levels`, a finite list of
    allowed values.
    """

    @abstractmethod
    def contains(self, value: AxisValue) -> bool:
        """Whether a value is allowed."""

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> AxisValue:
        """Draws a random allowed value: uniform for lists, log-uniform for ranges."""

    @abstractmethod
    def levels(self) -> list[AxisValue]:
        """Returns a finite list of allowed values in a fixed order, spread over the whole set."""

    @abstractmethod
    def nearest(self, value: AxisValue) -> AxisValue:
        """Returns the allowed value that is nearest to `value`."""

    @abstractmethod
    def describe(self) -> str:
        """Describes the allowed values in words, for error messages."""


@dataclass(frozen=True)
class OneOf(Choice):
    """A choice between listed values.

    Args:
        values: At least one value, without repetition.
    """

    values: tuple[AxisValue, ...]

    def __init__(self, values: Sequence[AxisValue]) -> None:
        if not values:
            raise ValueError("a choice needs at least one value")
        if len(set(values)) != len(values):
            raise ValueError(f"a choice lists a value twice: {list(values)}")
        object.__setattr__(self, "values", tuple(values))
        object.__setattr__(self, "_members", frozenset(values))

    def contains(self, value: AxisValue) -> bool:
        members: frozenset[AxisValue] = self.__dict__["_members"]
        return value in members

    def sample(self, rng: np.random.Generator) -> AxisValue:
        return self.values[int(rng.integers(len(self.values)))]

    def levels(self) -> list[AxisValue]:
        return list(self.values)

    def nearest(self, value: AxisValue) -> AxisValue:
        if value in self.values:
            return value
        numbers = [v for v in self.values if isinstance(v, int | float) and v > 0]
        if numbers and isinstance(value, int | float) and value > 0:
            return min(numbers, key=lambda v: abs(math.log(v / value)))
        return self.values[0]

    def describe(self) -> str:
        return "one of " + ", ".join(repr(value) for value in self.values)


@dataclass(frozen=True, kw_only=True)
class FloatRange(Choice):
    """A choice of a number between two bounds, both included, on a logarithmic scale.

    Args:
        low: Smallest value, above 0.
        high: Largest value, not below `low`.
        levels_per_decade: Number of values in `levels` per factor of ten.
    """

    low: float
    high: float
    levels_per_decade: int = 6

    def __post_init__(self) -> None:
        if not 0 < self.low <= self.high:
            raise ValueError(f"a range needs 0 < low <= high, got low={self.low} high={self.high}")
        if self.levels_per_decade < 1:
            raise ValueError(f"levels_per_decade must be at least 1, got {self.levels_per_decade}")

    def contains(self, value: AxisValue) -> bool:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        slack = 1e-5
        return self.low * (1 - slack) <= value <= self.high * (1 + slack)

    def sample(self, rng: np.random.Generator) -> AxisValue:
        return float(np.exp(rng.uniform(math.log(self.low), math.log(self.high))))

    def levels(self) -> list[AxisValue]:
        # The difference of logarithms, because the ratio high / low may overflow.
        decades = math.log10(self.high) - math.log10(self.low)
        count = max(1, math.ceil(decades * self.levels_per_decade - 1e-9)) + 1
        if self.low == self.high:
            return [self.low]
        return [float(f"{v:.4g}") for v in np.geomspace(self.low, self.high, count)]

    def nearest(self, value: AxisValue) -> AxisValue:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.low
        return min(max(float(value), self.low), self.high)

    def describe(self) -> str:
        return f"a number from {self.low:g} to {self.high:g}"


@dataclass(frozen=True, kw_only=True)
class CountRange(Choice):
    """A choice of a whole number between two bounds, both included, on a logarithmic scale.

    Args:
        low: Smallest value, at least 1.
        high: Largest value, not below `low`.
    """

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 1 <= self.low <= self.high:
            raise ValueError(f"a range needs 1 <= low <= high, got low={self.low} high={self.high}")

    def contains(self, value: AxisValue) -> bool:
        return isinstance(value, int) and not isinstance(value, bool) and self.low <= value <= self.high

    def sample(self, rng: np.random.Generator) -> AxisValue:
        drawn = np.exp(rng.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(max(int(drawn), self.low), self.high)

    def levels(self) -> list[AxisValue]:
        levels: list[AxisValue] = []
        level = self.low
        while level < self.high:
            levels.append(level)
            level *= 2
        return [*levels, self.high]

    def nearest(self, value: AxisValue) -> AxisValue:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return self.low
        return min(max(round(value), self.low), self.high)

    def describe(self) -> str:
        return f"a whole number from {self.low} to {self.high}"
