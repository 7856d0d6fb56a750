"""The model policy under test, and what its decisions say: the recommendation, intervals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from benchmarks.models.learnt_slopes import learnt_from
from search_spaces import Configuration
from tuner.analytic.features import Slope
from tuner.recordings.file import load_recording
from tuner.search.beliefs import Beliefs
from tuner.search.believer import Believer
from tuner.search.model_policy import ModelPolicy
from tuner.search.policy import Decision
from tuner.search.slope_priors import (
    NEUTRAL,
    TEXTBOOK,
    SlopeBeliefs,
)
from tuner.search.state import SearchState

#: An interval's ends and middle: it holds 90%.
LEVELS = (0.05, 0.5, 0.95)


def _reversed(slopes: Mapping[str, Slope]) -> dict[str, Slope]:
    return {name: replace(slope, mean=-slope.mean) for name, slope in slopes.items()}


#: A prior that misleads: the textbook's slopes with the opposite signs.
REVERSED = SlopeBeliefs(
    name="reversed", seconds=_reversed(TEXTBOOK.seconds), samples=_reversed(TEXTBOOK.samples)
)
PRIORS = {believed.name: believed for believed in (NEUTRAL, TEXTBOOK, REVERSED)}
LEARNT = "learnt:"


def make_believer(seed: int, prior: str) -> Believer:
    """What fits the models.

    Args:
        seed: Of the draws and of the first short probes.
        prior: One of `PRIORS`, or `learnt:FILE` for the slopes of another recording.
    """
    return Believer(seed=seed, prior=_believed(prior))


def make_policy(seed: int, prior: str) -> ModelPolicy:
    """The model policy with a prior; see `make_believer`."""
    return ModelPolicy(make_believer(seed, prior))


@lru_cache(maxsize=8)
def _believed(prior: str) -> SlopeBeliefs:
    if prior in PRIORS:
        return PRIORS[prior]
    return learnt_from(load_recording(Path(prior.removeprefix(LEARNT))))


def believed_beforehand(state: SearchState, prior: str) -> Configuration | None:
    """What the model recommends in a state, whether or not anything was measured."""
    beliefs = make_believer(0, prior).believe(state)
    return None if beliefs is None else _recommended(beliefs)


def recommended(decision: Decision) -> Configuration | None:
    """What a decision's beliefs recommend; None where there are none."""
    return None if decision.beliefs is None else _recommended(decision.beliefs)


def _recommended(beliefs: Beliefs) -> Configuration | None:
    return beliefs.recommended


def regret_bound(decision: Decision) -> float | None:
    """By which factor the recommendation may cost more than the best, at most, with 90% probability."""
    return None if decision.beliefs is None else decision.beliefs.regret_bound


def probability_of_reaching(decision: Decision, configuration: Configuration) -> float | None:
    """Probability that a configuration reaches the target; None where nothing is believed of it."""
    beliefs = decision.beliefs
    if beliefs is None or configuration not in beliefs.configurations:
        return None
    return float(beliefs.forecast.probability_of_reaching()[beliefs.configurations.index(configuration)])


def interval(decision: Decision, configuration: Configuration) -> tuple[float, float, float] | None:
    """Training seconds to the target at `LEVELS`; None where nothing is believed of the configuration."""
    beliefs = decision.beliefs
    if beliefs is None or configuration not in beliefs.configurations:
        return None
    column = beliefs.configurations.index(configuration)
    lower, median, upper = (float(beliefs.forecast.quantile(level)[column]) for level in LEVELS)
    return lower, median, upper
