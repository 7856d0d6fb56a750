"""Optuna samplers that suggest only feasible configurations, and the search space as Optuna distributions."""

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

#: If the sampler makes this number of infeasible suggestions in a row, a feasible configuration is drawn at
#: random.
_ATTEMPTS = 10
#: The same number for a space that is a list of recorded runs. It is smaller because Optuna's GP sampler
#: repeats its suggestion; after these attempts, the suggestion is replaced by the most similar entry of the
#: list.
_LISTED_ATTEMPTS = 2
#: Number of random trials before TPE and GP learn from trials.
_STARTUP_TRIALS = 5


def distributions(space: SearchSpace, more: Mapping[str, Any] | None = None) -> dict[str, BaseDistribution]:
    """Converts the axes of a search space to Optuna distributions.

    Args:
        space: The search space.
        more: Maps an axis to one more value that its distribution must include: that of the user's present
            settings, which may be outside the space.

    Returns:
        Maps each axis to its distribution.
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
    """Converts the parameters of one communication strategy (such as `tau`) to Optuna distributions.

    Optuna requires the same distribution for a parameter name in all trials. So if several strategies have a
    parameter of the same name, its distribution has the values of all these strategies. If Optuna suggests a
    value that the strategy does not have, `StudyTrials.ask` replaces it by the nearest value of the strategy.

    Args:
        space: The search space.
        strategy: Name of the communication strategy.

    Returns:
        Maps each parameter of the strategy to its distribution.
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
    """Returns the recorded configurations that have no Optuna trial; if all have one, all of them.

    A recorded run is replayed only once, because a second replay would show nothing new. Trials that only
    timed steps do not count.

    Args:
        study: The Optuna study with the trials.
        space: The list of recorded configurations.
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
    """Optuna sampler that always suggests one given configuration, so it can be stored as a trial.

    Args:
        proposed: The configuration, which the search has chosen.
    """

    def __init__(self, proposed: Configuration) -> None:
        super().__init__()
        self._proposed = proposed

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._proposed[param_name]


class FeasibleSampler(BaseSampler):
    """Optuna sampler that asks another sampler until it suggests a feasible configuration.

    - Infeasible suggestions do not become trials, because TPE learns nothing from failed trials.
    - The parameters of a communication strategy do not affect feasibility. They are sampled one by one after
      the strategy.
    - The other sampler is seeded with `seed` and the number of the first trial that it suggests. So a study
      that resumes in another process does not repeat its suggestions.
    - If the space is a list of recorded runs, configurations that have a trial are not suggested again. A
      suggestion that is not in the list is replaced by the most similar entry.

    Args:
        make_inner: Function that makes the other sampler; it is called with the keyword argument `seed`.
        space: The search space.
        seed: Seed of the other sampler and of random suggestions.
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
        """Makes a configuration from values of the axes, with the parameters that its strategy has.

        Args:
            values: Maps axes, and possibly parameters of the strategy, to values. A parameter without a value
                gets its first allowed value.
        """
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
            # The wrapped sampler suggests no values in its first trials; these are drawn at random.
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
    """Makes an Optuna sampler that suggests only feasible configurations.

    Args:
        name: Name of the Optuna sampler: `tpe`, `gp` or `random`.
        space: The search space.
        seed: Seed of the sampler.
    """
    make: dict[str, Callable[..., BaseSampler]] = {
        "tpe": partial(optuna.samplers.TPESampler, n_startup_trials=_STARTUP_TRIALS, constant_liar=True),
        # Only some trials have knobs, so Optuna samples these independently. Its warning about this is of no
        # use to the user.
        "gp": partial(
            optuna.samplers.GPSampler, n_startup_trials=_STARTUP_TRIALS, warn_independent_sampling=False
        ),
        "random": RandomSampler,
    }
    return FeasibleSampler(make[name], space, seed)
