"""Optuna samplers that suggest feasible configurations only, and the space as Optuna distributions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution
from optuna.samplers import BaseSampler, RandomSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from search_spaces import AxisValue, Choice, Configuration, FloatRange, ListedSpace, OneOf, SearchSpace
from tuner.domain.measurement import Purpose

#: Number of attempts to get a feasible suggestion before a configuration is drawn at random.
_ATTEMPTS = 10
#: The same for a listed space. Fewer, because GP repeats its suggestion, which moves to the nearest entry.
_LISTED_ATTEMPTS = 2
#: Number of random trials before TPE and GP learn from trials.
_STARTUP_TRIALS = 5


def distributions(space: SearchSpace, more: Mapping[str, Any] | None = None) -> dict[str, BaseDistribution]:
    """The axes of a space as Optuna distributions.

    Args:
        space: The space.
        more: Further values to allow, by axis: the present settings may be outside the space.
    """
    return {axis: _distribution(choice, (more or {}).get(axis)) for axis, choice in space.axes.items()}


def _distribution(choice: Choice, more: Any) -> BaseDistribution:
    if isinstance(choice, FloatRange):
        low, high = choice.low, choice.high
        if isinstance(more, int | float):
            low, high = min(low, float(more)), max(high, float(more))
        return FloatDistribution(low, high, log=True)
    assert isinstance(choice, OneOf)
    values = list(choice.values)
    if more is not None and more not in values:
        values.append(more)
    return CategoricalDistribution(values)


def knob_distributions(space: SearchSpace, strategy: str) -> dict[str, CategoricalDistribution]:
    """The knobs of one strategy as Optuna distributions.

    Optuna requires one distribution per name. So a knob that several strategies share has the levels of all
    of them. `StudyTrials.ask` moves a level that a strategy does not have to the nearest one that it has.
    """
    offered: dict[str, dict[AxisValue, None]] = {}
    strategies = space.axes["strategy"].levels() if "strategy" in space.axes else [strategy]
    for name in (str(level) for level in strategies):
        for knob, choice in space.knob_choices(name).items():
            offered.setdefault(knob, {}).update(dict.fromkeys(choice.levels()))
    return {
        knob: CategoricalDistribution(list(offered[knob]))
        for knob in space.knob_choices(strategy)
        if knob in offered
    }


def untried(study: Study, space: ListedSpace) -> list[Configuration]:
    """Configurations of a listed space that have no trial yet; all of them once each has one.

    Timing probes do not count. Replaying a recorded run again would show nothing new.
    """
    tried = {
        Configuration(trial.params)
        if "configuration" not in trial.user_attrs
        else Configuration.from_key(trial.user_attrs["configuration"])
        for trial in study.get_trials(deepcopy=False)
        if trial.user_attrs.get("purpose") != Purpose.TIMING.value
    }
    every = space.candidates()
    return [c for c in every if c not in tried] or every


class ProposedSampler(RandomSampler):
    """Sampler that returns a configuration chosen by the search, to store it as an Optuna trial.

    Args:
        proposed: The configuration of every trial.
    """

    def __init__(self, proposed: Configuration) -> None:
        super().__init__()
        self._proposed = proposed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._proposed[param_name]


class FeasibleSampler(BaseSampler):
    """Wraps an Optuna sampler and asks it again until its suggestion is feasible.

    Infeasible suggestions do not become trials, because TPE learns nothing from failed trials. Knobs do not
    affect feasibility and are sampled one by one once the strategy is known. The seed includes the number of
    the first trial, so a study that resumes in another process does not repeat its suggestions. In a listed
    space, configurations that were tried are excluded, and a suggestion that is not in the list moves to the
    nearest entry.

    Args:
        make_inner: Makes the wrapped sampler, from the argument `seed`.
        space: The search space.
        seed: Seed of all draws.
    """

    def __init__(self, make_inner: Callable[..., BaseSampler], space: SearchSpace, seed: int) -> None:
        self._make_inner = make_inner
        self._space = space
        self._seed = seed
        self._asked = {name: d for name, d in distributions(space).items() if not d.single()}
        self._inner: BaseSampler | None = None

    def _started(self, trial: FrozenTrial) -> BaseSampler:
        if self._inner is None:
            seed = np.random.SeedSequence((self._seed, trial.number)).generate_state(1)[0]
            self._inner = self._make_inner(seed=int(seed))
        return self._inner

    def _draw(self, rng: np.random.Generator, space: SearchSpace) -> dict[str, Any]:
        drawn = space.sample(rng)
        if drawn is None:
            raise RuntimeError("no feasible configuration was found by drawing at random")
        return drawn.as_dict()

    def _with_own_knobs(self, values: Mapping[str, Any]) -> Configuration:
        """A configuration with only the knobs of its strategy; knobs without a value get the first level."""
        plain = Configuration({axis: values[axis] for axis in self._space.axes})
        knobs = self._space.knob_choices(plain.strategy)
        return plain.replaced(**{n: choice.nearest(values.get(n, "")) for n, choice in knobs.items()})

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._asked

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        inner = self._started(trial)
        rng = np.random.default_rng((self._seed, trial.number))
        learnt = inner.infer_relative_search_space(study, trial)
        space = self._space
        attempts = _ATTEMPTS
        if isinstance(space, ListedSpace):
            space, attempts = ListedSpace(configurations=tuple(untried(study, space))), _LISTED_ATTEMPTS
        for _ in range(attempts):
            # Values that the inner sampler does not suggest, such as in its first trials, are drawn.
            values = {**self._draw(rng, space), **inner.sample_relative(study, trial, learnt)}
            if space.is_feasible(self._with_own_knobs(values)):
                break
        else:
            if isinstance(space, ListedSpace):
                values = space.nearest(self._with_own_knobs(values)).as_dict()
            else:
                values = self._draw(rng, space)
        return {name: values[name] for name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._started(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._started(trial).before_trial(study, trial)

    def after_trial(
        self, study: Study, trial: FrozenTrial, state: optuna.trial.TrialState, values: Any
    ) -> None:
        self._started(trial).after_trial(study, trial, state, values)


def baseline_sampler(name: str, space: SearchSpace, seed: int) -> BaseSampler:
    """An Optuna sampler, wrapped so that it suggests feasible configurations only.

    Args:
        name: `tpe`, `gp` or `random`.
        space: The search space.
        seed: Seed of the sampler.
    """
    make: dict[str, Callable[..., BaseSampler]] = {
        "tpe": partial(optuna.samplers.TPESampler, n_startup_trials=_STARTUP_TRIALS, constant_liar=True),
        # Only some trials have knobs, so these are sampled independently; the warning would not help.
        "gp": partial(
            optuna.samplers.GPSampler, n_startup_trials=_STARTUP_TRIALS, warn_independent_sampling=False
        ),
        "random": RandomSampler,
    }
    return FeasibleSampler(make[name], space, seed)
