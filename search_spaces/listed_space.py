"""Search space that consists of a list of configurations."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from search_spaces.choices import Choice, OneOf
from search_spaces.configuration import AxisValue, Configuration
from search_spaces.feasibility import Feasibility
from search_spaces.space import SearchSpace


@dataclass(frozen=True, kw_only=True)
class ListedSpace(SearchSpace):
    """A search space that consists of a list of configurations.

    `axes` contains the axes that all configurations have. Every other axis is a knob, that is, a parameter
    that only some strategies have.

    Args:
        configurations: At least one configuration, without repetition, in the order of `candidates`. All
            configurations of one strategy have the same axes.
    """

    configurations: tuple[Configuration, ...]

    def __post_init__(self) -> None:
        if not self.configurations:
            raise ValueError("a listed space needs at least one configuration")
        if len(self._members) != len(self.configurations):
            raise ValueError("a listed space has the same configuration twice")
        of_strategy: dict[str, frozenset[str]] = {}
        for configuration in self.configurations:
            axes = of_strategy.setdefault(configuration.strategy, frozenset(configuration))
            if axes != frozenset(configuration):
                raise ValueError(
                    f"{configuration} has other axes than earlier configurations of its strategy, "
                    f"which have {', '.join(sorted(axes))}"
                )

    @cached_property
    def axes(self) -> dict[str, Choice]:
        """The axes that every configuration has, with their listed values."""
        return self._choices(self.configurations, self._common)

    @cached_property
    def _common(self) -> list[str]:
        return [a for a in self.configurations[0] if all(a in c for c in self.configurations)]

    @cached_property
    def _members(self) -> frozenset[Configuration]:
        return frozenset(self.configurations)

    def knob_choices(self, strategy: str) -> dict[str, Choice]:
        """Returns the axes that only some strategies have, with the values listed for this strategy."""
        own = [c for c in self.configurations if c.strategy == strategy]
        names = [axis for axis in own[0] if axis not in self._common] if own else []
        return self._choices(own, names)

    def reasons_against(self, configuration: Configuration) -> list[str]:
        if configuration not in self._members:
            return [f"{configuration} is not listed; the nearest listed one is {self.nearest(configuration)}"]
        found = (condition.reason_against(configuration) for condition in self.conditions)
        return [reason for reason in found if reason is not None]

    def is_runnable(self, configuration: Configuration) -> bool:
        """Whether a configuration is listed and meets all conditions."""
        return self.is_feasible(configuration)

    def with_condition(self, condition: Feasibility) -> ListedSpace:
        return replace(self, conditions=(*self.conditions, condition))

    def candidates(self) -> list[Configuration]:
        """Returns every listed configuration that meets all conditions, in the order of the list."""
        if not self.conditions:
            return list(self.configurations)
        return [c for c in self.configurations if self.is_feasible(c)]

    def sample(self, rng: np.random.Generator, *, attempts: int = 1000) -> Configuration | None:
        """Draws a random feasible configuration; None if no configuration is feasible."""
        feasible = self.candidates()
        return feasible[int(rng.integers(len(feasible)))] if feasible else None

    def nearest(self, configuration: Configuration) -> Configuration:
        """Returns the nearest listed configuration; the first one in the list if several are equally near.

        The distance is the sum over axes of: the absolute logarithm of the ratio of two positive numbers, and
        1 for other different values or for an axis that only one configuration has.
        """
        return min(self.configurations, key=lambda listed: _distance(listed, configuration))

    @staticmethod
    def _choices(configurations: Sequence[Configuration], names: Sequence[str]) -> dict[str, Choice]:
        return {name: OneOf(_ordered([c[name] for c in configurations])) for name in names}


def _ordered(values: Sequence[AxisValue]) -> list[AxisValue]:
    """Returns the distinct values: ascending if all are numbers, otherwise in the given order."""
    distinct = list(dict.fromkeys(values))
    numbers = [v for v in distinct if isinstance(v, int | float)]
    return [*sorted(numbers)] if len(numbers) == len(distinct) else distinct


def _distance(one: Configuration, other: Configuration) -> float:
    """Returns the distance that `ListedSpace.nearest` minimizes."""
    total = float(len(set(one) ^ set(other)))
    for axis in set(one) & set(other):
        a, b = one[axis], other[axis]
        if a == b:
            continue
        positive = isinstance(a, int | float) and isinstance(b, int | float) and a > 0 and b > 0
        total += abs(math.log(float(a) / float(b))) if positive else 1.0
    return total
