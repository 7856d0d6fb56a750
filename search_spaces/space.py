"""Search spaces: axes with their allowed values, and the feasible combinations of values."""

from __future__ import annotations

import itertools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

import numpy as np

from search_spaces.choices import Choice
from search_spaces.configuration import Configuration
from search_spaces.feasibility import Feasibility
from search_spaces.strategy_traits import traits_of


@dataclass(frozen=True, kw_only=True)
class SearchSpace(ABC):
    """The configurations that the search may try: axes with allowed values, and feasibility conditions.

    Args:
        conditions: Hashable conditions that a feasible configuration must meet.
    """

    conditions: Sequence[Feasibility] = ()

    @property
    @abstractmethod
    def axes(self) -> Mapping[str, Choice]:
        """Allowed values of the axes that every configuration has, by axis name."""

    @abstractmethod
    def knob_choices(self, strategy: str) -> dict[str, Choice]:
        """Returns the allowed values of the knobs (further axes) of a strategy, by knob name."""

    @abstractmethod
    def reasons_against(self, configuration: Configuration) -> list[str]:
        """Returns why a configuration is outside the space or infeasible; empty if it is feasible."""

    @abstractmethod
    def is_runnable(self, configuration: Configuration) -> bool:
        """Whether a configuration can run, though some of its values may be outside the search space."""

    @abstractmethod
    def with_condition(self, condition: Feasibility) -> SearchSpace:
        """Returns a copy of the space with one more condition."""

    @abstractmethod
    def candidates(self) -> list[Configuration]:
        """Returns every feasible configuration that the model-driven search considers, in a fixed order."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, *, attempts: int = 1000) -> Configuration | None:
        """Draws a random feasible configuration; None if none was found in `attempts` draws."""

    def is_feasible(self, configuration: Configuration) -> bool:
        """Whether a configuration is in the space and meets all conditions."""
        return not self.reasons_against(configuration)


@dataclass(frozen=True, kw_only=True)
class ProductSpace(SearchSpace):
    """A search space of all combinations of the axes' values.

    Besides the axes in `choices`, a configuration has the knobs (parameters) of its own strategy.

    Args:
        choices: Allowed values by axis name; must have `nodes`, `batch_size`, `learning_rate` and `strategy`.
        knobs: Allowed values of knobs, by knob name, instead of the values that the search considers by
            default.
    """

    choices: Mapping[str, Choice]
    knobs: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def axes(self) -> Mapping[str, Choice]:
        return self.choices

    def knob_choices(self, strategy: str) -> dict[str, Choice]:
        """Returns the allowed values of a strategy's knobs (its own parameters), by knob name."""
        return {name: self.knobs.get(name, knob.levels) for name, knob in traits_of(strategy).knobs.items()}

    def reasons_against(self, configuration: Configuration) -> list[str]:
        choices = {**self.axes, **self.knob_choices(configuration.strategy)}
        reasons = [f"{axis} is not an axis of this space" for axis in configuration if axis not in choices]
        for axis, choice in choices.items():
            if axis not in configuration:
                reasons.append(f"{axis} is missing")
            elif not choice.contains(configuration[axis]):
                reasons.append(f"{axis}={configuration[axis]!r}: allowed is {choice.describe()}")
        if not reasons:
            found = (condition.reason_against(configuration) for condition in self.conditions)
            reasons = [reason for reason in found if reason is not None]
        return reasons

    def is_feasible(self, configuration: Configuration) -> bool:
        # Without the texts of reasons, since a large space asks this for every combination.
        choices = {**self.axes, **self.knob_choices(configuration.strategy)}
        return (
            choices.keys() == set(configuration)
            and all(choice.contains(configuration[axis]) for axis, choice in choices.items())
            and all(condition.reason_against(configuration) is None for condition in self.conditions)
        )

    def is_runnable(self, configuration: Configuration) -> bool:
        """Whether the space allows a configuration's number of nodes, and all conditions are met.

        Batch size and learning rate may be outside their ranges, as a user's present settings often are.
        """
        if not self.axes["nodes"].contains(configuration.nodes):
            return False
        return all(c.reason_against(configuration) is None for c in self.conditions)

    def with_condition(self, condition: Feasibility) -> ProductSpace:
        return replace(self, conditions=(*self.conditions, condition))

    def candidates(self) -> list[Configuration]:
        """Returns every feasible combination of the axes' levels (see `Choice`), in a fixed order; cached."""
        choices, knobs = tuple(self.choices.items()), tuple(self.knobs.items())
        # 1 and 1.0 are equal but print differently, so the text is part of the cache key.
        return list(_combinations(choices, knobs, tuple(self.conditions), repr((choices, knobs))))

    def num_combinations(self) -> int:
        """Returns the number of combinations of the axes' levels (see `Choice`), feasible or not."""
        sizes = (len(choice.levels()) for name, choice in self.axes.items() if name != "strategy")
        knobs = (self.knob_choices(str(strategy)).values() for strategy in self.axes["strategy"].levels())
        return math.prod(sizes) * sum(math.prod(len(knob.levels()) for knob in own) for own in knobs)

    def combinations(self) -> Iterator[Configuration]:
        """Generates the same configurations as `candidates`, without the cache."""
        names = list(self.axes)
        for values in itertools.product(*(self.axes[name].levels() for name in names)):
            base = dict(zip(names, values, strict=True))
            knobs = self.knob_choices(str(base["strategy"]))
            for knob_values in itertools.product(*(choice.levels() for choice in knobs.values())):
                configuration = Configuration({**base, **dict(zip(knobs, knob_values, strict=True))})
                if self.is_feasible(configuration):
                    yield configuration

    def sample(self, rng: np.random.Generator, *, attempts: int = 1000) -> Configuration | None:
        for _ in range(attempts):
            base = {name: choice.sample(rng) for name, choice in self.axes.items()}
            knobs = self.knob_choices(str(base["strategy"]))
            drawn = Configuration({**base, **{n: c.sample(rng) for n, c in knobs.items()}})
            if self.is_feasible(drawn):
                return drawn
        return None


@lru_cache(maxsize=16)
def _combinations(
    choices: tuple[tuple[str, Choice], ...],
    knobs: tuple[tuple[str, Choice], ...],
    conditions: tuple[Feasibility, ...],
    _written: str,
) -> tuple[Configuration, ...]:
    """Returns the candidates of a space; cached, because the search asks for them at every decision."""
    space = ProductSpace(choices=dict(choices), knobs=dict(knobs), conditions=conditions)
    return tuple(space.combinations())
