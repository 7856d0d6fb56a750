"""Optuna distributions and samplers that only suggest feasible configurations."""

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

#: How often a sampler is asked again for a feasible configuration before one is drawn at random.
_ATTEMPTS = 10
#: In a list, where what is suggested can be moved to the nearest: GP suggests the same over and over.
_LISTED_ATTEMPTS = 2
#: Trials drawn at random before TPE and GP learn from them.
_STARTUP_TRIALS = 5


def distributions(space: SearchSpace, more: Mapping[str, Any] | None = None) -> dict[str, BaseDistribution]:
    """The space as Optuna's distributions.

    Args:
        space: The space.
        more: Values that must be allowed too, by axis: the present settings may lie outside the space.
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
    """The knobs of one strategy as Optuna's distributions.

    Optuna wants one distribution a name, so that a knob which several strategies of the space have offers
    the levels of all of them; a level that a strategy does not offer is moved to the nearest that it does.
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
    """The untried part of a listed space, timing probes ignored; all of it once nothing is left.

    Trying again what is recorded shows nothing new.
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
    """Gives Optuna the configuration that the search has chosen, so that it becomes a trial.

    Args:
        proposed: What every trial is.
    """

    def __init__(self, proposed: Configuration) -> None:
        super().__init__()
        self._proposed = proposed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._proposed[param_name]


class FeasibleSampler(BaseSampler):
    """One of Optuna's samplers, asked again until what it suggests is feasible.

    Infeasible configurations are masked before they become trials: TPE learns nothing from FAIL. Knobs do
    not decide what is feasible, and are asked for one by one once the strategy is known.
    Chance is seeded with the number of the first trial it is asked for, so that a study that resumes
    in another process is not asked the same again. Where the space is a list, what was tried is masked
    too, and what is none of the list is moved to the nearest that is.

    Args:
        make_inner: Makes the sampler whose suggestions are used, from the argument `seed`.
        space: What may be tried.
        seed: Of all draws.
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
        """The values with the knobs of their strategy and no others: the first level where none is given."""
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
            # What the inner sampler leaves open, as it does at its start, is drawn.
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
    """One of Optuna's samplers behind the feasibility mask.

    Args:
        name: `tpe`, `gp` or `random`.
        space: What may be tried.
        seed: Of the sampler.
    """
    make: dict[str, Callable[..., BaseSampler]] = {
        "tpe": partial(optuna.samplers.TPESampler, n_startup_trials=_STARTUP_TRIALS, constant_liar=True),
        # Knobs, which only some trials have, are sampled independently: its warning would add nothing.
        "gp": partial(
            optuna.samplers.GPSampler, n_startup_trials=_STARTUP_TRIALS, warn_independent_sampling=False
        ),
        "random": RandomSampler,
    }
    return FeasibleSampler(make[name], space, seed)
