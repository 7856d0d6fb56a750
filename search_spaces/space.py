"""Search spaces: axes with their choices, and the feasible combinations."""

from __future__ import annotations

import itertools
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
    """The configurations that may be tried: axes with their choices, and conditions on combinations.

    Args:
        conditions: Conditions that a configuration must meet; hashable.
    """

    conditions: Sequence[Feasibility] = ()

    @property
    @abstractmethod
    def axes(self) -> Mapping[str, Choice]:
        """Choices of the axes that every configuration has, by name."""

    @abstractmethod
    def knob_choices(self, strategy: str) -> dict[str, Choice]:
        """Choices of the further axes that are active with a strategy, by name."""

    @abstractmethod
    def reasons_against(self, configuration: Configuration) -> list[str]:
        """Why a configuration is outside the space or infeasible; empty if it may be tried."""

    @abstractmethod
    def is_runnable(self, configuration: Configuration) -> bool:
        """Whether a configuration can run, even if it is outside of the choices."""

    @abstractmethod
    def with_condition(self, condition: Feasibility) -> SearchSpace:
        """A copy of the space with one more condition."""

    @abstractmethod
    def candidates(self) -> list[Configuration]:
        """Every feasible combination of levels, in a fixed order."""

    @abstractmethod
    def sample(self, rng: np.random.Generator, *, attempts: int = 1000) -> Configuration | None:
        """A random feasible configuration; None if `attempts` draws found none."""

    def is_feasible(self, configuration: Configuration) -> bool:
        """Whether a configuration is feasible."""
        return not self.reasons_against(configuration)


@dataclass(frozen=True, kw_only=True)
class ProductSpace(SearchSpace):
    """All combinations of the values of axes.

    Args:
        choices: Choices by axis name, with `nodes`, `batch_size`, `learning_rate` and `strategy`. Knobs of a
            strategy are added from its traits and are active only with it.
        knobs: Choices that replace the default levels of knobs, by name.
    """

    choices: Mapping[str, Choice]
    knobs: Mapping[str, Choice] = field(default_factory=dict)

    @property
    def axes(self) -> Mapping[str, Choice]:
        return self.choices

    def knob_choices(self, strategy: str) -> dict[str, Choice]:
        """Choices of the knobs of a strategy, by name."""
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

    def is_runnable(self, configuration: Configuration) -> bool:
        """Whether its nodes exist and it meets all conditions.

        Batch size and learning rate may be outside the ranges, as a user's present settings often are.
        """
        if not self.axes["nodes"].contains(configuration.nodes):
            return False
        return all(c.reason_against(configuration) is None for c in self.conditions)

    def with_condition(self, condition: Feasibility) -> ProductSpace:
        return replace(self, conditions=(*self.conditions, condition))

    def candidates(self) -> list[Configuration]:
        """Every feasible combination of levels, in a fixed order."""
        choices, knobs = tuple(self.choices.items()), tuple(self.knobs.items())
        # 1 and 1.0 are equal but print differently, so the text is part of the cache key.
        return list(_combinations(choices, knobs, tuple(self.conditions), repr((choices, knobs))))

    def combinations(self) -> Iterator[Configuration]:
        """Generates `candidates`, without the cache."""
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
    """Caches the candidates: a search needs the same ones at every decision, from an equal space."""
    space = ProductSpace(choices=dict(choices), knobs=dict(knobs), conditions=conditions)
    return tuple(space.combinations())
