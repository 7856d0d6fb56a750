"""Predicts how long one configuration trains to the target, and says what the prediction rests on."""

from __future__ import annotations

import math
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from search_spaces import KNOBS, Configuration, traits_of
from tuner.advice.alternatives import alternative, repeat_sd
from tuner.advice.no_answer import has_turned_back, shows_no_gain
from tuner.advice.recommend import Ending, checked_predictions, goal_words
from tuner.analytic.laws import Array
from tuner.analytic.quasi_random import NUM_DRAWS
from tuner.analytic.samples_model import SEED_SD
from tuner.domain.format import axis_title, format_axis, format_dollars, format_ratio, format_seconds
from tuner.domain.measurement import Purpose
from tuner.domain.recommendation import Alternative
from tuner.search.beliefs import Beliefs
from tuner.search.prediction_log import LEVELS
from tuner.search.runs import run_key
from tuner.search.state import SearchState, run_of
from tuner.search.stopping import SECONDS_PER_HOUR

#: A value counts as beyond the measured values if it differs from the nearest one by more than this factor.
_BEYOND = 1.01
#: Smallest number of trainings to the target from which the scatter of training times is estimated.
_FEWEST_RATIOS = 5
#: An interval is called wide if its upper end is at least this many times its lower end.
_WIDE = 10.0


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """The prediction of one configuration's time to target.

    Args:
        study_name: Name of the study whose measurements it rests on.
        goal: The goal in words.
        forecast: Predicted time, price and chance of reaching the target.
        chances: Maps each limit of the job, such as `the budget of 90 s`, to the chance that a training of
            the configuration reaches the target within it.
        startup_seconds: Expected start-up time before the training; None if the job runs no command.
        evidence: What the prediction rests on, in sentences.
        remarks: What the user should know before they rely on it, in sentences.
    """

    study_name: str
    goal: str
    forecast: Alternative
    chances: Mapping[str, float]
    startup_seconds: float | None
    evidence: tuple[str, ...]
    remarks: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Posterior samples of a training of one configuration from the start to the target.

    Row i of two configurations of the same study belongs to the same values of the models' parameters.

    Args:
        log_samples: Logarithm of the number of samples to target, `(NUM_DRAWS,)`.
        log_speed: Logarithm of the seconds per sample, `(NUM_DRAWS,)`.
        never: Whether the target is never reached, `(NUM_DRAWS,)`.
    """

    log_samples: Array
    log_speed: Array
    never: npt.NDArray[np.bool_]

    @property
    def log_seconds(self) -> Array:
        """Logarithm of the training seconds to target, if it is reached, `(NUM_DRAWS,)`."""
        return self.log_samples + self.log_speed


def training_draws(ending: Ending, configuration: Configuration) -> Draws:
    """Returns posterior samples for a new training of a configuration.

    A run that has reached the target is known, but a new training of the same configuration would differ by
    the order of its data, and steps take longer at some times than at others. So this variation is added, and
    the seconds per sample are those of the model, whose errors other configurations share.

    Args:
        ending: The measurements of the study and its forecasts.
        configuration: One of the configurations of the forecasts.
    """
    state, beliefs = ending.state, ending.beliefs
    forecast, index = beliefs.forecast, beliefs.configurations.index(configuration)
    log_speed, run = forecast.log_speed[:, index], run_of(state, configuration)
    if run is None:
        log_samples = forecast.log_seconds[:, index] - log_speed
    else:
        log_samples = forecast.log_samples[:, index]
    if run is not None and run.arrived:
        # Configurations with the same learning curve differ only in speed, so they get the same variation.
        log_samples = log_samples + SEED_SD * _normals(state, run_key(state.job, configuration).key)
    return Draws(log_samples=log_samples, log_speed=log_speed, never=forecast.never[:, index])


def _with_scatter(ending: Ending, configuration: Configuration) -> Beliefs:
    """Adds to the forecast of an untrained configuration how much the times of single trainings scatter.

    The model predicts the usual time of a step. A single training may take longer, for example if other
    programs use its cores meanwhile. Each posterior sample is multiplied by the ratio of a measured training
    (`time_ratios`), one of the third whose usual times are most similar. Nothing is changed if there are
    fewer than `_FEWEST_RATIOS`.
    """
    state, beliefs = ending.state, ending.beliefs
    measured = time_ratios(state, beliefs)
    if len(measured) < _FEWEST_RATIOS:
        return beliefs
    forecast, index = beliefs.forecast, beliefs.configurations.index(configuration)
    # Interruptions by the system change short trainings much more than long ones.
    median = float(np.median(forecast.log_seconds[:, index]))
    nearest = sorted(measured, key=lambda pair: abs(math.log(pair[0]) - median))
    ratios = [ratio for _, ratio in nearest[: max(_FEWEST_RATIOS, len(measured) // 3)]]
    order = _generator(state, configuration.key).permutation(NUM_DRAWS) % len(ratios)
    log_seconds = forecast.log_seconds.copy()
    log_seconds[:, index] += np.log(ratios)[order]
    return replace(beliefs, forecast=replace(forecast, log_seconds=log_seconds))


def time_ratios(state: SearchState, beliefs: Beliefs) -> list[tuple[float, float]]:
    """Compares the measured time to target of each run with its samples and the predicted speed.

    Args:
        state: State of the search.
        beliefs: Forecasts of all candidates.

    Returns:
        For each run that has reached the target, the seconds that its samples take at the predicted speed,
        and the ratio of the measured seconds to them.
    """
    per_sample = beliefs.forecast.seconds_per_sample.tolist()
    speeds = dict(zip(beliefs.configurations, per_sample, strict=True))
    arrived = [run for run in state.runs.values() if run.arrived and run.configuration in speeds]
    usual = [(run.samples_to_target or math.nan) * speeds[run.configuration] for run in arrived]
    measured = [run.seconds_to_target or math.nan for run in arrived]
    return [(seconds, own / seconds) for seconds, own in zip(usual, measured, strict=True)]


def _normals(state: SearchState, text: str) -> Array:
    """Returns standard normal numbers that depend only on the job's seed and a text, `(NUM_DRAWS,)`."""
    return _generator(state, text).standard_normal(NUM_DRAWS)


def _generator(state: SearchState, text: str) -> np.random.Generator:
    return np.random.default_rng([state.job.seed, zlib.crc32(text.encode())])


def bounded(chance: float) -> float:
    """Limits a predicted probability to 5% to 95%, because the models cannot be more certain."""
    return min(max(chance, LEVELS[0]), LEVELS[-1])


def predict(ending: Ending, configuration: Configuration) -> Prediction:
    """Predicts the training of a configuration from the measurements of a study.

    Args:
        ending: The measurements of the study and its forecasts, which include the configuration.
        configuration: The configuration.
    """
    state = ending.state
    run, beliefs = run_of(state, configuration), ending.beliefs
    seconds = beliefs.forecast.total[:, beliefs.configurations.index(configuration)]
    if run is not None and run.arrived:
        seconds = np.exp(training_draws(ending, configuration).log_seconds)
        if run.configuration == configuration and run.seconds_to_target is not None:
            # As the interval of the forecast: around the measured time.
            normals = _normals(state, configuration.key)
            seconds = run.seconds_to_target * np.exp(repeat_sd(beliefs) * normals)
    elif run is None:
        beliefs = _with_scatter(ending, configuration)
        seconds = beliefs.forecast.total[:, beliefs.configurations.index(configuration)]
    forecast = alternative(state, beliefs, configuration)
    return Prediction(
        study_name=ending.study_name,
        goal=goal_words(state),
        forecast=forecast,
        chances={
            words: bounded(float(np.mean(seconds <= limit))) for words, limit in _limits(state, configuration)
        },
        startup_seconds=state.startup_seconds if state.job.runs_command else None,
        evidence=tuple(_evidence(ending, configuration)),
        remarks=(*_width_remark(forecast), *_remarks(ending, configuration)),
    )


def _limits(state: SearchState, configuration: Configuration) -> Iterator[tuple[str, float]]:
    """Yields the limits of the job in words, each with the training seconds of the configuration it allows.

    Those of the goal count training alone. The budget of the search counts as if it were spent on a single
    training of the configuration, with its start-up and its evaluations. It says nothing about an emulated
    configuration, whose training seconds are not those of this machine.
    """

    def trained(seconds: float) -> float:
        return max(seconds - state.startup_seconds, 0.0) / state.overhead

    goal, budget = state.job.goal, state.job.budget
    price, nodes = state.cluster.dollars_per_second(configuration), state.cluster.nodes_held(configuration)
    if goal.deadline is not None:
        yield f"the deadline of {format_seconds(goal.deadline)}", goal.deadline
    if goal.max_dollars is not None and price > 0:
        yield f"the goal's {format_dollars(goal.max_dollars)}", goal.max_dollars / price
    if state.cluster.emulates(configuration):
        return
    if budget.time is not None:
        yield f"the budget of {format_seconds(budget.time)}", trained(budget.time)
    if budget.dollars is not None and price > 0:
        yield f"the budget of {format_dollars(budget.dollars)}", trained(budget.dollars / price)
    if budget.node_hours is not None and nodes > 0:
        seconds = SECONDS_PER_HOUR * budget.node_hours / nodes
        yield f"the budget of {budget.node_hours:g} node hours", trained(seconds)


def _evidence(ending: Ending, configuration: Configuration) -> Iterator[str]:
    """Yields sentences that say which measurements the prediction of a configuration rests on."""
    state = ending.state
    scored = [run for run in state.runs.values() if run.measurement.trained_curve]
    arrived = sum(run.arrived for run in scored)
    timed = sum(probe.purpose is Purpose.TIMING for probe in state.probes)
    words = f"{len(scored)} configuration{'' if len(scored) == 1 else 's'} trained and scored, {arrived} of "
    words += "them to the target"
    yield f"{words}; {timed} timing probe{'' if timed == 1 else 's'} made." if timed else f"{words}."
    yield _own_words(state, configuration)
    beyond = list(_beyond(state, configuration))
    yield from beyond or ["All its values are within what was measured."]
    checked = checked_predictions(ending)
    if checked:
        right = sum(
            one.prediction.quantiles[LEVELS[0]]
            <= one.measured_seconds
            <= one.prediction.quantiles[LEVELS[-1]]
            for one in checked
        )
        yield (
            f"{right} of {len(checked)} earlier predictions of this study that could be checked held within "
            "the 90% interval."
        )


def _own_words(state: SearchState, configuration: Configuration) -> str:
    run = run_of(state, configuration)
    if run is None:
        return "This configuration was not trained; the models predict it from the others."
    trained = f"{format_seconds(run.seen_seconds)} ({format_axis(run.seen_samples)} samples)"
    if run.configuration != configuration:
        where = f"{run.configuration.nodes} node{'' if run.configuration.nodes == 1 else 's'}"
        return f"Its learning curve was measured on {where} for {trained}; only the speed is predicted."
    if run.seconds_to_target is not None:
        measured = format_seconds(run.seconds_to_target)
        return f"A training of this configuration reached the target after {measured}."
    return f"This configuration was trained for {trained}, and has not reached the target yet."


def _beyond(state: SearchState, configuration: Configuration) -> Iterator[str]:
    """Yields a sentence for each value of a configuration that lies outside what was measured."""
    scored = [run.configuration for run in state.runs.values() if run.measurement.trained_curve]
    timed = [m.configuration for m in state.slices if m.step_seconds is not None or m.trained_curve]
    strategies = {c.strategy for c in scored}
    for axis, value in configuration.items():
        if axis in KNOBS and configuration.strategy not in strategies:
            continue  # the sentence about the strategy is enough
        # Step times are measured by timing probes too. Curves may not depend on the number of nodes.
        seen = timed if axis == "nodes" else scored
        if axis == "nodes" and traits_of(configuration.strategy).statistics_depend_on_nodes:
            seen = scored
        known = [c[axis] for c in seen if axis in c]
        name, shown = axis_title(axis), format_axis(value)
        if isinstance(value, bool | str):
            if value not in known and axis != "strategy":
                yield f"No run with {name} {shown} was measured; its effect is a guess from priors."
            elif value not in known:
                yield f"No run with {shown} was measured; what it costs is a guess from published results."
            continue
        numbers = [float(k) for k in known if isinstance(k, int | float)]
        if not numbers or min(numbers) <= 0 or value <= 0:
            if value not in known:
                yield f"No run with {name} {shown} was measured; its effect is a guess from priors."
        elif value > _BEYOND * max(numbers):
            ratio = value / max(numbers)
            yield (
                f"Extrapolated: {name} {shown} is {ratio:.2g} times the largest measured value, "
                f"{format_axis(max(known))}."
            )
        elif _BEYOND * value < min(numbers):
            ratio = min(numbers) / value
            yield (
                f"Extrapolated: {name} {shown} is {ratio:.2g} times smaller than the smallest measured "
                f"value, {format_axis(min(known))}."
            )


def _width_remark(forecast: Alternative) -> tuple[str, ...]:
    """Returns a sentence on a wide interval; nothing if the interval is not wide."""
    lower, upper = forecast.seconds.lower, forecast.seconds.upper
    if not upper >= _WIDE * lower:
        return ()
    ratio = f"{format_ratio(upper / lower)} from end to end" if math.isfinite(upper) else "no upper bound"
    return (
        f"The interval is wide ({ratio}), because too few of the measured runs are like this configuration. "
        "Trainings of it or of similar ones make it narrower: paceline run --explore uses the rest of the "
        "budget for such probes.",
    )


def _remarks(ending: Ending, configuration: Configuration) -> Iterator[str]:
    """Yields sentences on what weakens the prediction of a configuration."""
    state = ending.state
    for axis, choice in {
        **state.space.axes,
        **state.space.knob_choices(configuration.strategy),
    }.items():
        if axis in configuration and not choice.contains(configuration[axis]):
            yield (
                f"{axis} = {format_axis(configuration[axis])} is outside the search space, where it is "
                f"{choice.describe()}: the search does not consider it."
            )
    if configuration in state.given_up:
        yield "The last training of this configuration failed."
    if shows_no_gain(state):
        yield "No run has improved clearly since its first score, so time and chance are guesses."
    elif has_turned_back(state):
        yield "Runs stopped improving before the target, so the target seems out of reach."
    run = run_of(state, configuration)
    if run is not None and run.turned_back is not None:
        yield "The run of this configuration has stopped improving before the target."
    oversubscribed = state.cluster.oversubscription(configuration.nodes)
    if configuration.nodes > max(state.cluster.node_counts) and oversubscribed > 1:
        yield (
            f"{configuration.nodes} nodes on this host share its cores {math.ceil(oversubscribed)}-fold; on "
            "separate nodes the steps would be shorter."
        )
