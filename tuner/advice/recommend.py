"""Builds the recommendation at the end of a search, with its evidence and its costs."""

from __future__ import annotations

import math
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from search_spaces import Configuration
from tuner.advice.alternatives import alternative
from tuner.advice.analysis import analysis
from tuner.advice.conditions import Refit
from tuner.advice.how_to_train import command_of, model_of, own_command_of, trainer_values
from tuner.advice.interval_check import compared_predictions, interval_check
from tuner.advice.no_answer import has_score, has_turned_back, shows_no_gain
from tuner.advice.other_nodes import better_on_other_nodes
from tuner.advice.script_warnings import axes_without_effect, differing_axes
from tuner.advice.sensitivity import sensitivity
from tuner.advice.strategies import strategy_outlooks
from tuner.advice.warnings import cautions
from tuner.domain.cluster import charge
from tuner.domain.format import format_count, format_seconds
from tuner.domain.ledger import EARLY_SHARE, PredictedAgainstMeasured, PredictionRecord
from tuner.domain.measurement import Outcome, Purpose
from tuner.domain.recommendation import (
    Alternative,
    Estimate,
    ImportedEvidence,
    Recommendation,
    TuningCost,
    Verification,
)
from tuner.search.beliefs import Beliefs
from tuner.search.policy import Stop, StopKind
from tuner.search.prediction_log import LEVELS
from tuner.search.run_subset import modelled
from tuner.search.runs import Run, continues_another, paid_slices
from tuner.search.state import SearchState, run_of

#: Two costs count as equal if their ratio is below this value.
_EQUAL_RATIO = 1.05
#: Two measured times to target count as equal if their ratio is at most this value, because repeated
#: trainings with other orders of the data differ by as much.
_SAME_TIME = 1.2
#: A configuration is recommended only if it reaches the target with at least this probability.
_LIKELY = 0.5
#: The user is warned if the step time varies over time by at least this relative standard deviation.
_UNEVEN_SD = 0.25


@dataclass(frozen=True, kw_only=True)
class Ending:
    """Everything that a recommendation is made from: the state of a search at its end, and its forecasts.

    Args:
        state: State at the end of the search.
        beliefs: Forecasts for all candidates at the end of the search.
        stop: The last action of the search, with the cause of its end.
        predictions: All predictions of time to target that the search stored, oldest first.
        study_name: Name of the study.
        job_path: Path of the job file.
        created_at: Time of the recommendation, in seconds since the Unix epoch.
        imported: Summary of the runs that the user imported for the job; None without imported runs.
        refit: Function that fits the models to another state, for the analysis of other conditions; None to
            leave out what needs it.
    """

    state: SearchState
    beliefs: Beliefs
    stop: Stop
    predictions: list[PredictionRecord]
    study_name: str
    job_path: Path
    created_at: float
    imported: ImportedEvidence | None = None
    refit: Refit | None = None


def recommend(ending: Ending) -> Recommendation | None:
    """Builds the recommendation of a search that has ended.

    Args:
        ending: The results of the search.

    Returns:
        The recommendation; None if no trained model was scored, or if no configuration is expected to reach
        the target.
    """
    state, stop = ending.state, ending.stop
    if not has_score(state) or shows_no_gain(state) or has_turned_back(state):
        return None
    choice = _choice(ending)
    if choice is None:
        return None
    if alternative(ending.state, ending.beliefs, choice).probability_of_reaching < _LIKELY:
        return None  # the choice probably never reaches the target
    run = run_of(state, choice)
    verified = _verification(ending, run)
    strategies = strategy_outlooks(state, ending.beliefs, choice)
    check = interval_check(checked_predictions(ending))
    too_narrow = check is not None and check.too_narrow
    unverified = verified is None or not verified.reached
    num_samples = _training_samples(ending, choice)
    size = state.job.command.epoch_samples if state.job.runs_command else None
    return Recommendation(
        job_name=state.job.name,
        study_name=ending.study_name,
        created_at=ending.created_at,
        goal=goal_words(state),
        choice=alternative(ending.state, ending.beliefs, choice),
        runner_up=_runner_up(ending, choice),
        baseline=_baseline(ending),
        verified=verified,
        provisional=unverified and (stop.kind is not StopKind.NO_GAIN or run is None or too_narrow),
        evidence=(*_evidence(ending, choice, run), *(outlook.comparison for outlook in strategies[:1])),
        warnings=(
            *cautions(state, stop, choice),
            *better_on_other_nodes(state, ending.beliefs, choice),
            *_uneven(ending),
        ),
        stop_reason=stop.reason,
        tuning=tuning_cost(state),
        checkpoint=model_of(state, run),
        command=command_of(state, choice, ending.job_path),
        user_command=own_command_of(state.job, choice, ending.job_path, num_samples),
        training_samples=num_samples,
        training_epochs=None if num_samples is None or size is None else num_samples / size,
        strategies=strategies,
        sensitivity=sensitivity(state, ending.beliefs, choice),
        ended_by_budget=stop.kind in (StopKind.BUDGET, StopKind.INTERRUPTED),
        stop_kind=str(stop.kind),
        axes_without_effect=tuple(sorted(axes_without_effect(state))),
        startup_seconds=state.startup_seconds if state.job.runs_command else None,
        imported=ending.imported,
        interval_check=check,
        analysis=analysis(modelled(state), ending.beliefs, choice, ending.refit),
        trainer_values=trainer_values(state.job, choice),
    )


def _uneven(ending: Ending) -> tuple[str, ...]:
    """Returns a warning if step times change during the search, which makes times hard to compare."""
    sd = ending.beliefs.predictor.seconds.between_moments_sd
    if sd < _UNEVEN_SD or not ending.state.terms.times_alone:
        return ()
    return (
        f"The time of the same step varied by {100 * sd:.0f}% during the search, as on a machine with other "
        "load. Smaller differences between measured times may be due to this variation.",
    )


def _training_samples(ending: Ending, choice: Configuration) -> int | None:
    """Returns the number of samples after which the target is reached with 95% probability.

    Args:
        ending: The results of the search.
        choice: The recommended configuration.

    Returns:
        The number of samples; None if unknown, or if the job does not run a script.
    """
    expected, beliefs = alternative(ending.state, ending.beliefs, choice), ending.beliefs
    run = run_of(ending.state, choice)
    per_sample = float(beliefs.forecast.seconds_per_sample[beliefs.configurations.index(choice)])
    if expected.measured_seconds is not None and run is not None and run.samples_to_target:
        per_sample = expected.measured_seconds / run.samples_to_target
    samples = expected.seconds.upper / per_sample
    return math.ceil(samples) if ending.state.job.runs_command and math.isfinite(samples) else None


def goal_words(state: SearchState) -> str:
    """Returns the goal in words, such as `accuracy >= 0.9, soonest`."""
    goal = state.job.goal
    sign = ">=" if goal.maximize else "<="
    wish = "soonest" if goal.minimize == "seconds" else "cheapest"
    return f"{goal.metric} {sign} {goal.target:g}, {wish}"


def tuning_cost(state: SearchState) -> TuningCost:
    """Sums up what the search cost.

    The seconds are split by the purpose of the slices (parts of trainings), and by what they were spent on:
    training, evaluation, start-up, repeated training and other time. The training seconds of an emulated
    probe are the seconds that its emulation took.

    Args:
        state: State of the search.
    """
    by_purpose: defaultdict[str, float] = defaultdict(float)
    by_part = dict.fromkeys(("training", "scoring", "startup", "repeated", "other"), 0.0)
    for probe in state.probes:
        for measurement, trained in paid_slices(probe):
            overhead = measurement.scoring_seconds + measurement.startup_seconds
            overhead += measurement.repeated_seconds
            if state.cluster.emulates(probe.configuration):
                # The training clock is virtual, but the charge is the time of this machine.
                trained = max(measurement.charged_seconds - overhead, 0.0)
            by_purpose[measurement.purpose.value] += measurement.charged_seconds
            by_part["training"] += trained
            by_part["scoring"] += measurement.scoring_seconds
            by_part["startup"] += measurement.startup_seconds
            by_part["repeated"] += measurement.repeated_seconds
            by_part["other"] += max(measurement.charged_seconds - trained - overhead, 0.0)
    if not by_part["repeated"]:
        del by_part["repeated"]
    return TuningCost(
        seconds=state.spent.seconds,
        dollars=state.spent.dollars,
        num_probes=len(state.probes),
        seconds_by_purpose=dict(by_purpose),
        seconds_by_part=by_part,
        elapsed_seconds=state.elapsed_seconds if state.elapsed_seconds < state.spent.seconds else None,
    )


def landscape(ending: Ending) -> list[Alternative]:
    """Returns one forecast for each combination of number of nodes, batch size and strategy.

    It is the forecast of the best candidate (smallest expected cost) with the combination.

    Args:
        ending: The results of the search.
    """
    expected = ending.beliefs.expected
    best: dict[tuple[int, int, str], int] = {}
    for i, c in enumerate(ending.beliefs.configurations):
        key = (c.nodes, c.batch_size, c.strategy)
        if key not in best or expected[i] < expected[best[key]]:
            best[key] = i
    found = [
        alternative(ending.state, ending.beliefs, ending.beliefs.configurations[i]) for i in best.values()
    ]
    return sorted(found, key=lambda a: (a.configuration.nodes, a.configuration.batch_size))


def checked_predictions(ending: Ending) -> list[PredictedAgainstMeasured]:
    """Compares predictions of the time to target with the times that were measured later.

    Args:
        ending: The results of the search.
    """
    measured = {
        run.configuration: run.seconds_to_target
        for run in ending.state.runs.values()
        if run.seconds_to_target is not None
    }
    return compared_predictions(ending.predictions, measured)


def _choice(ending: Ending) -> Configuration | None:
    """Returns the configuration to recommend; None if none is expected to reach the target.

    If the search ended because a run reached the target, only configurations of runs that reached the target
    are considered. Otherwise, the result is the choice of the forecasts (`Beliefs.recommended`).
    """
    expected = ending.beliefs.expected
    configurations = ending.beliefs.configurations
    if ending.stop.kind is StopKind.ARRIVED:
        arrived = {run.configuration for run in ending.state.runs.values() if run.arrived}
        indices = [i for i, c in enumerate(configurations) if c in arrived]
    else:
        best = ending.beliefs.recommended
        indices = [] if best is None else [configurations.index(best)]
    given_up = ending.state.given_up
    usable = [i for i in indices if math.isfinite(expected[i]) and configurations[i] not in given_up]
    if not usable:
        return None
    chosen = min(usable, key=lambda i: float(expected[i]))
    if ending.stop.kind is not StopKind.ARRIVED:
        chosen = _measured_first(ending, chosen, expected)
    return configurations[chosen]


def _measured_first(ending: Ending, chosen: int, expected: npt.NDArray[np.float64]) -> int:
    """Replaces the chosen configuration by a measured one or the present settings if these may be as good.

    - If the chosen configuration has no score, it is replaced by the best configuration with a score, unless
      it costs less even at the upper end of its 90% interval.
    - If the chosen configuration differs from the user's present settings only in parameters without effect,
      it is replaced by the present settings, unless its run was clearly faster.

    Args:
        ending: The results of the search.
        chosen: Index of the configuration that the forecasts recommend.
        expected: Expected cost of every configuration, `(num,)`.

    Returns:
        Index of the configuration to recommend.
    """
    state, beliefs = ending.state, ending.beliefs
    configurations = beliefs.configurations
    if not _is_scored(state, configurations[chosen]):
        scored = [
            i for i, c in enumerate(configurations) if _is_scored(state, c) and math.isfinite(expected[i])
        ]
        upper = beliefs.forecast.quantile(LEVELS[-1]) * beliefs.price
        best = min(scored, key=lambda i: float(expected[i]), default=chosen)
        if upper[chosen] >= expected[best]:
            chosen = best
    present = state.job.baseline_configuration()
    if present in configurations:
        index = configurations.index(present)
        differs = differing_axes(configurations[chosen], present)
        ran, present_run = run_of(state, configurations[chosen]), run_of(state, present)
        is_ahead = ran is not None and ran.arrived and _is_ahead(ran, present_run)
        is_same = differs and math.isfinite(expected[index]) and differs <= axes_without_effect(state)
        if is_same and not is_ahead:
            return index
    return chosen


def _is_ahead(run: Run, present: Run | None) -> bool:
    """Whether a run that reached the target was clearly faster than that of the user's present settings."""
    if present is None or present.seconds_to_target is None or run.seconds_to_target is None:
        return True
    return present.seconds_to_target > _SAME_TIME * run.seconds_to_target


def _is_scored(state: SearchState, configuration: Configuration) -> bool:
    """Whether a model with the learning curve of this configuration was evaluated after training."""
    run = run_of(state, configuration)
    return run is not None and bool(run.measurement.trained_curve)


def _runner_up(ending: Ending, choice: Configuration) -> Alternative | None:
    """Returns the best other configuration; one that differs only in the learning rate does not count."""
    expected = ending.beliefs.expected
    same, given_up = choice.without("learning_rate"), ending.state.given_up
    others = [
        i
        for i, c in enumerate(ending.beliefs.configurations)
        if c.without("learning_rate") != same and math.isfinite(expected[i]) and c not in given_up
    ]
    if not others:
        return None
    best = min(others, key=lambda i: float(expected[i]))
    return alternative(ending.state, ending.beliefs, ending.beliefs.configurations[best])


def _baseline(ending: Ending) -> Alternative | None:
    baseline = ending.state.job.baseline_configuration()
    if baseline is None or baseline not in ending.beliefs.configurations:
        return None
    return alternative(ending.state, ending.beliefs, baseline)


def _verification(ending: Ending, run: Run | None) -> Verification | None:
    if run is None or run.probe.outcome not in (Outcome.REACHED, Outcome.DIVERGED, Outcome.STOPPED):
        return None
    seconds = run.seconds_to_target or run.measurement.training_seconds
    judged = [
        (prediction, prediction.seconds_observed / seconds)
        for prediction in ending.predictions
        if prediction.configuration == run.configuration and prediction.seconds_observed < seconds
    ]
    early = [item for item in judged if item[1] <= EARLY_SHARE]
    # Use the last prediction that was made early in the run. If there is none, use the first prediction.
    held = early[-1] if early else (judged[0] if judged else None)
    values = [point.value for point in run.measurement.trained_curve]
    if not values:  # the recording ends before the first score
        return None
    best = max(values) if ending.state.job.goal.maximize else min(values)
    return Verification(
        reached=run.arrived,
        training_seconds=seconds,
        dollars=charge(seconds, run.configuration, ending.state.cluster).dollars,
        value=best,
        predicted=_estimate(held[0]) if held else None,
        share_observed=held[1] if held else None,
        last_value=values[-1],
        first_score_seconds=_score_seconds(run) if run.arrived else None,
    )


def _score_seconds(run: Run) -> float | None:
    """Returns the training seconds at the first evaluation that reached the target."""
    crossed = run.samples_to_target or 0.0
    return next((p.training_seconds for p in run.measurement.trained_curve if p.samples >= crossed), None)


def _estimate(prediction: PredictionRecord) -> Estimate:
    lower, median, upper = (prediction.quantiles[level] for level in LEVELS)
    return Estimate(lower=lower, median=median, upper=upper)


def _evidence(ending: Ending, choice: Configuration, run: Run | None) -> list[str]:
    state = ending.state
    timed = sum(p.purpose is Purpose.TIMING for p in state.probes)
    lines = [
        f"{_counted(len(state.runs), 'training')} started and {_counted(timed, 'timing probe')} made, "
        f"in {_counted(len(state.slices), 'slice')}."
    ]
    if run is not None:
        nodes = {m.configuration.nodes for m in run.probe.slices if m.charged_seconds > 0}
        lines.append(
            f"The run of this configuration processed {format_count(run.measurement.samples)} samples in "
            f"{format_seconds(run.measurement.training_seconds)} of training."
        )
        if continues_another(run.probe) or nodes - {choice.nodes}:
            lines.append(
                "Part of this run was trained on another number of nodes, or for an earlier target. The "
                "step-time model converts seconds on other nodes to seconds on these nodes."
            )
    else:
        lines.append(
            "The recommended configuration was not trained itself. The models predict it from other runs."
        )
    lines.append(_regret_words(ending))
    return lines


def _counted(count: int, noun: str) -> str:
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _regret_words(ending: Ending) -> str:
    """Writes a sentence on how much better another configuration may be, with 90% probability."""
    bound = ending.beliefs.regret_bound
    if not math.isfinite(bound):
        return "It is not known yet how much better another configuration may be."
    minimize = ending.state.job.goal.minimize
    if bound < _EQUAL_RATIO:
        better = "faster" if minimize == "seconds" else "cheaper"
        return f"With 90% probability nothing in this space is noticeably {better}."
    words = "fast" if minimize == "seconds" else "cheap"
    return f"With 90% probability nothing in this space is more than {bound:.2g} times as {words}."
