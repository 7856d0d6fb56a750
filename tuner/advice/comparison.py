"""Compares two trainings by their forecasts: which is sooner (or cheaper), how sure that is, and why."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.advice.alternatives import alternative
from tuner.advice.prediction import Draws, bounded, training_draws
from tuner.advice.recommend import Ending, goal_words
from tuner.analytic.laws import Array
from tuner.domain.format import format_chance, format_ratio
from tuner.domain.recommendation import Alternative, Estimate
from tuner.search.prediction_log import LEVELS

#: Below this probability that one training is sooner, the comparison is not decided.
_DECIDED = 0.75
#: A factor decides nothing if it differs from 1 by less than this. Chances decide nothing if they differ by
#: at most as many percentage points.
_SAME = 1.05


@dataclass(frozen=True, kw_only=True)
class Case:
    """One of the two trainings to compare.

    Args:
        label: Name of the training in sentences, such as `A`.
        ending: The study that the forecast comes from, and its forecasts.
        configuration: The configuration, one of those of the forecasts.
    """

    label: str
    ending: Ending
    configuration: Configuration

    @property
    def startup_seconds(self) -> float:
        """Expected seconds before the first step of a script; 0 for other jobs."""
        state = self.ending.state
        return state.startup_seconds if state.job.runs_command else 0.0


@dataclass(frozen=True, kw_only=True)
class Side:
    """The forecast of one of the two trainings.

    Args:
        label: Name of the training, such as `A`.
        study_name: Name of the study that the forecast comes from.
        goal: Goal of the study, in words.
        forecast: Predicted time, price and chance of reaching the target.
        samples: Number of samples to target.
        sample_seconds: Seconds per sample.
        startup_seconds: Expected start-up time of a script, which is part of the comparison; 0 for others.
    """

    label: str
    study_name: str
    goal: str
    forecast: Alternative
    samples: Estimate
    sample_seconds: Estimate
    startup_seconds: float

    @property
    def step_seconds(self) -> float:
        """Predicted seconds of one step on a global batch."""
        return self.sample_seconds.median * self.forecast.configuration.batch_size


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two trainings, side by side. Ratios are those of B to A, for posterior samples in which both arrive.

    Args:
        sides: The two trainings, A and B.
        probabilities: Probability that A is sooner, and that B is sooner. Their sum is less than 1 if it is
            possible that neither reaches the target, or that both take equally long.
        seconds_ratio: Time to target, with start-up; None if the two never reach the target both.
        training_ratio: Time to target, without start-up; None likewise.
        samples_ratio: Number of samples to target; None likewise.
        speed_ratio: Seconds per sample; None likewise.
        dollars_ratio: Price to target, with start-up; None likewise, or without a price of both.
        training_dollars_ratio: Price to target, without start-up; None likewise.
        better: Index of the training that is more likely to be better: cheaper if this is the goal of both,
            else sooner.
        answer: A sentence that says which is sooner, by what factor and how sure that is; before it, one that
            says which is cheaper, if this is the goal of both.
        decides: A sentence that says what decides.
        remarks: Sentences on what weakens the comparison.
    """

    sides: tuple[Side, Side]
    probabilities: tuple[float, float]
    seconds_ratio: Estimate | None
    training_ratio: Estimate | None
    samples_ratio: Estimate | None
    speed_ratio: Estimate | None
    dollars_ratio: Estimate | None
    training_dollars_ratio: Estimate | None
    better: int
    answer: str
    decides: str
    remarks: tuple[str, ...]


def compare(first: Case, second: Case) -> Comparison:
    """Compares two trainings of one study, or of two studies.

    For two configurations of one study, the posterior samples are joint, so errors that both forecasts have
    in common cancel. Those of two studies are independent.

    Args:
        first: Training A.
        second: Training B.
    """
    a, b = (
        training_draws(first.ending, first.configuration),
        training_draws(second.ending, second.configuration),
    )
    if first.ending is not second.ending:
        b = _permuted(b, second.ending.state.job.seed)
    sides = _side(first, a), _side(second, b)
    totals = [
        np.where(draws.never, np.inf, np.exp(np.minimum(draws.log_seconds, 600.0)) + case.startup_seconds)
        for draws, case in ((a, first), (b, second))
    ]
    sooner = [totals[0] < totals[1], totals[1] < totals[0]]
    both = ~a.never & ~b.never
    logs = {
        "seconds": np.log(totals[1][both]) - np.log(totals[0][both]),
        "training": (b.log_seconds - a.log_seconds)[both],
        "samples": (b.log_samples - a.log_samples)[both],
        "speed": (b.log_speed - a.log_speed)[both],
    }
    prices = [_price(case) for case in (first, second)]
    ratios = {name: _ratio(values) for name, values in logs.items()}
    # Without prices, the costs are the times.
    costs = [seconds * (price or 1.0) for seconds, price in zip(totals, prices, strict=True)]
    dollars = training_dollars = None
    if all(prices):
        dollars = _ratio(np.log(costs[1][both]) - np.log(costs[0][both]))
        training_dollars = _ratio(logs["training"] + math.log(prices[1] / prices[0]))
    chances = bounded(float(sooner[0].mean())), bounded(float(sooner[1].mean()))
    winner = int(chances[1] > chances[0])
    answer = _answer(sides, chances, ratios["seconds"])
    better = winner
    if dollars and all(case.ending.state.job.goal.minimize == "dollars" for case in (first, second)):
        cheaper = bounded(float((costs[0] < costs[1]).mean())), bounded(float((costs[1] < costs[0]).mean()))
        better = int(cheaper[1] > cheaper[0])
        answer = f"{_price_answer(sides, better, cheaper[better], dollars)} {answer}"
    return Comparison(
        sides=sides,
        probabilities=chances,
        seconds_ratio=ratios["seconds"],
        training_ratio=ratios["training"],
        samples_ratio=ratios["samples"],
        speed_ratio=ratios["speed"],
        dollars_ratio=dollars,
        training_dollars_ratio=training_dollars,
        better=better,
        answer=answer,
        decides=_decides(sides, winner, sooner[winner], (a, b)[1 - winner].never, logs),
        remarks=(*_undecided(1.0 - float(sooner[0].mean() + sooner[1].mean())), *_remarks(sides)),
    )


def _permuted(draws: Draws, seed: int) -> Draws:
    """Reorders posterior samples, so that they are independent of those of another study."""
    order = np.random.default_rng([seed, 1]).permutation(len(draws.never))
    return Draws(
        log_samples=draws.log_samples[order], log_speed=draws.log_speed[order], never=draws.never[order]
    )


def _side(case: Case, draws: Draws) -> Side:
    state = case.ending.state
    nan = Estimate(lower=math.nan, median=math.nan, upper=math.nan)
    reached = ~draws.never
    return Side(
        label=case.label,
        study_name=case.ending.study_name,
        goal=goal_words(state),
        forecast=alternative(state, case.ending.beliefs, case.configuration),
        samples=_ratio(draws.log_samples[reached]) or nan,
        sample_seconds=_ratio(draws.log_speed) or nan,
        startup_seconds=case.startup_seconds,
    )


def _price(case: Case) -> float:
    return case.ending.state.cluster.dollars_per_second(case.configuration)


def _ratio(logs: Array) -> Estimate | None:
    """Returns median and 90% interval of values that are given as logarithms; None without a value."""
    if not len(logs):
        return None
    lower, median, upper = np.exp(np.minimum(np.quantile(logs, LEVELS), 600.0)).tolist()
    return Estimate(lower=lower, median=median, upper=upper)


def _answer(sides: tuple[Side, Side], chances: tuple[float, float], ratio: Estimate | None) -> str:
    """Writes the sentence that says which training is sooner."""
    winner = int(chances[1] > chances[0])
    sooner, later = sides[winner].label, sides[1 - winner].label
    chance = format_chance(chances[winner])
    if ratio is None:
        words = f"{sooner} is sooner (probability {chance})."
        if chances[winner] < _DECIDED:
            words = f"Not decided: the probability that {sooner} is sooner is {chance}."
        return f"{words} It is unlikely that both reach the target."
    if winner:
        ratio = _inverse(ratio)
    startup = ", start-up included" if any(side.startup_seconds for side in sides) else ""
    times = f"{format_ratio(ratio.median)} the time of {sooner}{startup} (90% interval {_interval(ratio)})"
    basis = "" if all(side.forecast.is_observed for side in sides) else ", as predicted"
    if chances[winner] < _DECIDED:
        return (
            f"Not decided: the probability that {sooner} is sooner is {chance}. {later} takes {times}{basis}."
        )
    return f"{sooner} is sooner (probability {chance}): {later} takes {times}{basis}."


def _price_answer(sides: tuple[Side, Side], winner: int, probability: float, ratio: Estimate) -> str:
    """Writes the sentence that says which training is cheaper.

    Args:
        sides: The trainings A and B.
        winner: Index of the training that is probably cheaper.
        probability: Probability that it is cheaper. A training that does not reach the target is not cheaper.
        ratio: Price of B over that of A, with start-up, if both reach the target.
    """
    if winner:
        ratio = _inverse(ratio)
    cheaper, other = sides[winner].label, sides[1 - winner].label
    words = f"{cheaper} is cheaper (probability {format_chance(probability)})"
    if probability < _DECIDED:
        words = f"Not decided: the probability that {cheaper} is cheaper is {format_chance(probability)}"
    startup = ", start-up included" if any(side.startup_seconds for side in sides) else ""
    times = f"{format_ratio(ratio.median)} the price of {cheaper}{startup} (90% interval {_interval(ratio)})"
    return f"{words}: {other} costs {times}."


def _inverse(ratio: Estimate) -> Estimate:
    return Estimate(lower=1 / ratio.upper, median=1 / ratio.median, upper=1 / ratio.lower)


def _interval(ratio: Estimate) -> str:
    return f"{format_ratio(ratio.lower)} to {format_ratio(ratio.upper)}"


def _decides(
    sides: tuple[Side, Side],
    winner: int,
    sooner: npt.NDArray[np.bool_],
    other_never: npt.NDArray[np.bool_],
    logs: dict[str, Array],
) -> str:
    """Writes the sentence that says why one training is sooner.

    Args:
        sides: The two trainings.
        winner: Index of the training that is probably sooner.
        sooner: Whether this training is sooner, for each posterior sample.
        other_never: Whether the other training never reaches the target, for each posterior sample.
        logs: Logarithms of the ratios of B to A, for posterior samples in which both reach the target.
    """
    better, worse = sides[winner], sides[1 - winner]
    chances = [side.forecast.probability_of_reaching for side in (better, worse)]
    if sooner.any() and other_never[sooner].mean() > 0.5 and chances[0] > chances[1] + _SAME - 1.0:
        return (
            f"What decides is the chance of reaching the target: "
            f"{format_chance(chances[0])} for {better.label}, {format_chance(chances[1])} for {worse.label}."
        )
    if not len(logs["samples"]):
        return "The measurements do not show what decides."
    sign = -1.0 if winner else 1.0
    samples, speed = (sign * float(np.median(logs[name])) for name in ("samples", "speed"))
    found = {"the number of samples to target": samples, "the time per sample": speed}
    shortest, longest = sorted(side.startup_seconds for side in sides)
    if longest > _SAME * shortest:  # equal start-ups only bring the ratio nearer to 1
        found["the start-up"] = sign * float(np.median(logs["seconds"] - logs["training"]))
    name = max(found, key=lambda one: found[one])
    if found[name] < math.log(_SAME):
        return "Nothing decides: no factor differs by 5% or more."
    words = f"What decides is {name}: {worse.label} has {format_ratio(math.exp(found[name]))} that of "
    words += f"{better.label}"
    against = min(found, key=lambda one: found[one])
    if found[against] < -math.log(_SAME):
        ratio = format_ratio(math.exp(-found[against]))
        words += f". In {against[4:]}, {worse.label} is better by {ratio}"
    return f"{words}."


def _undecided(chance: float) -> tuple[str, ...]:
    """Returns a sentence on the probability that none of the two is sooner; nothing if that is unlikely."""
    if chance < LEVELS[0]:
        return ()
    return (
        f"With a probability of {format_chance(chance)}, neither is sooner: neither reaches the target, or "
        "both take equally long.",
    )


def _remarks(sides: tuple[Side, Side]) -> list[str]:
    """Returns sentences on what weakens the comparison."""
    found = []
    if sides[0].goal != sides[1].goal:
        found.append(f"The goals differ: {sides[0].goal}, against {sides[1].goal}.")
    unmeasured = [side.label for side in sides if not side.forecast.is_observed]
    if unmeasured:
        who = " and ".join(unmeasured)
        verb = "was" if len(unmeasured) == 1 else "were"
        found.append(f"{who} {verb} not trained: the models predict {'it' if verb == 'was' else 'them'}.")
    return found
